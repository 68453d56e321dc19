"""Contents that failed downloads leave behind, each with the beginning of its error after the path."""

from collections.abc import Mapping

SUBSTITUTES: Mapping[bytes, str] = {
    (
        b"version https://git-lfs.github.com/spec/v1\n"
        b"oid sha256:f71343cb8732a8a0f572cc8b50abec1a3fe381b737294e389cc9c29112cf3ce4\nsize 2032\n"
    ): "is a Git LFS pointer, not the file itself: run git lfs pull",
    b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head></html>\n": "holds a web page",
    b"\n <HTML><BODY>Please log in</BODY></HTML>": "holds a web page",
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>': "holds a web page",
    b"": "is empty: download it again",
}
