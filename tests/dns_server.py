"""A DNS server for tests: `dns_server.py ADDRESS FILE` answers every A query with the IPv4 addresses in the file.

The file is read again for each query; of other types of record there are none.
"""

import socket
import struct
import sys
from pathlib import Path

A_RECORD = 1
HEADER = struct.Struct(">6H")
# Points to the name of the question, in class IN, to be kept for 0 s.
ANSWER = struct.Struct(">3HIH4s")


def answer(query: bytes, addresses: list[str]) -> bytes:
    end = query.index(0, HEADER.size) + 5  # the question: labels, type, class
    question = query[HEADER.size : end]
    found = addresses if int.from_bytes(question[-4:-2]) == A_RECORD else []
    header = HEADER.pack(int.from_bytes(query[:2]), 0x8580, 1, len(found), 0, 0)
    answers = [ANSWER.pack(0xC00C, A_RECORD, 1, 0, 4, socket.inet_aton(address)) for address in found]
    return header + question + b"".join(answers)


def main(address: str, file: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        while True:
            query, client = server.recvfrom(512)
            server.sendto(answer(query, Path(file).read_text().split()), client)


if __name__ == "__main__":
    main(*sys.argv[1:])
