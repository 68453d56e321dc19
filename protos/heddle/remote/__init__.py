"""Files at an address: in a bucket, on a web server, or in a folder. `heddle.checkpoint.sources` downloads models with
this package, and `heddle.artifacts` keeps builds with it.

    addresses.py     what an address such as s3://bucket/path names
    filesystems.py   opens buckets and folders with fsspec
    web.py           reads files from web servers
    errors.py        says in one line what went wrong with an address; disk_errors.py: with the disk
    downloads.py     files in blocks, several at once: resumed, checked, renamed when complete

Libraries are imported when an address needs them.
"""
