#!/usr/bin/env python3
"""The example of a model server, as a process of its own against a running `remige serve`.

    model_server_check.py grpc://127.0.0.1:8815
"""
import contextlib
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request

EXAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "model_server.py")
# Far beyond what anything here takes: who hangs is stopped here.
HANG = 120


@contextlib.contextmanager
def running(address, deadline):
    p = subprocess.Popen([sys.executable, EXAMPLE, address, "--port", "0", "--deadline", str(deadline)], stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(HANG, p.kill)
    watchdog.start()
    try:
        url = next((line.split()[-1] for line in p.stdout if line.startswith("listening on ")), None)
        assert url, "the example did not start"
        yield url
    finally:
        watchdog.cancel()
        p.terminate()
        p.wait()


def post(url, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + "/predict", data), timeout=HANG) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)


def main(address):
    with running(address, HANG) as url:
        code, rows = post(url, {"shopper_id": [1, 2, 1, 999_999], "amount": [40, 250.0, 250.0, 40.0]})
        assert code == 200, (code, rows)
        assert [r["shopper_id"] for r in rows] == [1, 2, 1, 999_999], rows
        assert [r["features"] for r in rows] == ["PRESENT", "PRESENT", "PRESENT", "NOT_FOUND"], rows
        # the model saw that purchases far above the usual are sent back
        assert rows[0]["risk"] < 0.2 < 0.5 < rows[2]["risk"] and rows[1]["risk"] > 0.5, rows
        for bad, word in [(b"{", "Expecting"), ([], "shopper_id"), ({"amount": [1.0]}, "shopper_id"), ({"shopper_id": ["1"], "amount": [1.0]}, "shopper_id"),
                          ({"shopper_id": [1], "amount": [1.0, 2.0]}, "equally long"), ({"shopper_id": [1 << 70], "amount": [1.0]}, "BIGINT")]:
            code, answer = post(url, bad)
            assert code == 400 and word in answer["error"], (bad, code, answer)
        answers = []
        asked = [threading.Thread(target=lambda: answers.append(post(url, {"shopper_id": [1], "amount": [40.0]}))) for _ in range(16)]
        for t in asked:
            t.start()
        for t in asked:
            t.join()
        assert len(answers) == 16 and all(a == (200, [{**rows[0]}]) for a in answers), answers
        print("ok   predictions, statuses, wrong requests, 16 at once")
    with running(address, 0.000_001) as url:
        code, answer = post(url, {"shopper_id": [1], "amount": [40.0]})
        assert code == 504 and "in time" in answer["error"], (code, answer)
        print("ok   a deadline that is over")
    print("model_server_check: passed")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
