"""What requests come down to: each task plans a request, and `EngineRequest` or `LocalRequest` carries the plan out."""
