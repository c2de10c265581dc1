"""What Keylime's check of an IMA list costs, in milliseconds of CPU time: FILE of digests, FILE of the list, value of PCR 10."""

import json
import logging
import statistics
import struct
import sys
import time

from keylime.common.algorithms import Hash
from keylime.ima import ima

logging.disable(logging.CRITICAL)
ROUNDS = 3


def fields(data):
    """Each has its length before it."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


def lines(data):
    """Entries of ima-sig, as ascii_runtime_measurements has them."""
    at = 0
    while at < len(data):
        pcr, template_hash, length = struct.unpack_from("<I20sI", data, at)
        at += 28
        template = data[at : at + length].decode()
        at += length
        (length,) = struct.unpack_from("<I", data, at)
        digest, name, signature = fields(data[at + 4 : at + 4 + length])
        at += 4 + length
        algorithm, digest = digest.split(b":\0", 1)
        name = name.rstrip(b"\0").decode()
        yield f"{pcr} {template_hash.hex()} {template} {algorithm.decode()}:{digest.hex()} {name} {signature.hex()}\n"


def policy(file):
    digests = {}
    with open(file, encoding="utf-8") as listed:
        for line in listed:
            digest, path = line.rstrip("\n").split(" ", 1)
            digests[path] = [digest.split(":")[1]]
    text = {**ima.EMPTY_RUNTIME_POLICY, "digests": digests}
    return ima.deserialize_runtime_policy(json.dumps(text))


def check(text, allowed, value):
    """Whether it is accepted, and how long that took."""
    start = time.process_time()
    _, failure = ima.process_measurement_list(None, text.split("\n"), allowed, pcrval=value, hash_alg=Hash.SHA256)
    return not failure, (time.process_time() - start) * 1000


def main():
    allowed = policy(sys.argv[1])
    with open(sys.argv[2], "rb") as measured:
        entries = list(lines(measured.read()))
    text, value = "".join(entries), sys.argv[3]
    file, number = entries[-1].split(" ")[4], entries[-1].index("sha256:") + 7
    byte = "00" if entries[-1][number : number + 2] != "00" else "01"
    changed = entries[-1][:number] + byte + entries[-1][number + 2 :]
    if check("".join([*entries[:-1], changed]), allowed, value)[0]:
        sys.exit("Keylime accepts a list with a changed byte")
    digests, allowed["digests"][file] = allowed["digests"][file], ["00" * 32]
    if check(text, allowed, value)[0]:
        sys.exit("Keylime accepts a file that is not listed")
    allowed["digests"][file] = digests

    times = []
    for _ in range(ROUNDS):
        accepted, spent = check(text, allowed, value)
        if not accepted:
            sys.exit("Keylime refuses the genuine list")
        times.append(spent)
    print(statistics.median(times))


main()
