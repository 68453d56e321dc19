"""Where the files of a model come from, when `--model` names no folder. Called by `heddle.checkpoint.model_source`.

    hub.py            the Hugging Face Hub, with huggingface_hub and its cache; hub_errors.py says what went wrong
    remote_folder.py  a model at an address, in Heddle's cache: locked, shared between versions, used while offline
    buckets.py        its files in a bucket; web.py: on a web server; listing.py: what both offer to `remote_folder`
    archives.py       unpacks tar and zip within limits

`heddle.remote` opens addresses and downloads files. Libraries are imported when a source needs them;
a folder needs none.
"""
