"""Plans each kind of request, and carries the plans out.

In the order in which a request meets the files:

1. `table`: finds the task of the request, and whether the model can do it.
2. `embedding`, `cosine`, `reranking`, `prediction`, `token_prediction`, `tokens`: the tasks. Each makes a `plan` for
   the `served_model`; `inputs` and `scores` help.
3. `engine_request` carries a plan out with the engines: `grouping` divides its sequences into submissions, `outcomes`
   checks the results. `local_request` carries out a plan that needs no engine.
"""
