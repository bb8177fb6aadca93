"""What a policy adds to the function's start: from process start to the first poll of the runtime's API.

`make bench` runs it on the bootstrap that SAM built. The policies take turns within one run, as a busy
machine is slow for all of them alike; what counts is the difference of the medians.
"""

import http.server
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

RULES = 1000
ROUNDS = 40


class RuntimeApi(http.server.BaseHTTPRequestHandler):
    """Lambda's runtime API, as far as the first poll."""

    protocol_version = "HTTP/1.1"
    polled = threading.Event()
    at = 0.0

    def do_GET(self):
        RuntimeApi.at = time.perf_counter()
        RuntimeApi.polled.set()
        time.sleep(60)

    def log_message(self, *_):
        pass


def rules(count):
    """A policy of so many rules, every kind of match key among them."""
    kinds = [
        '[[expect]]\nname = "win2022-{n}-*"\nplatform = "Windows"\n',
        '[[expect]]\nregistered_by = "arn:aws:sts::*:assumed-role/rhel-pipeline-{n}/*"\nregion = "eu-*"\n'
        'platform = ["RedHat", "RedHatHa"]\n',
        '[[expect]]\ntag = {{ Team = "team-{n}", Stage = "prod*" }}\narchitecture = "x86_64"\n'
        'platform = "Windows with SQL Server Standard"\n',
        '[[exempt]]\nname = "*-byol-{n}"\ndescription = "*BYOL*"\nreason = "BYOL drops its billing code on purpose"\n',
    ]
    return "version = 1\n" + "".join(kinds[n % len(kinds)].format(n=n) for n in range(count))


def start(bootstrap, port, policy):
    """Milliseconds from process start to the first poll."""
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_FUNCTION_NAME": "guard",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_LOG_GROUP_NAME": "group",
        "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
        "AWS_REGION": "eu-west-1",
        "GUARD_ALERT_TOPIC_ARN": "arn:aws:sns:eu-west-1:123456789012:alerts",
        "GUARD_POLICY_PATH": policy,
    }
    RuntimeApi.polled.clear()
    begun = time.perf_counter()
    process = subprocess.Popen([bootstrap], env=environment, stdout=subprocess.DEVNULL)
    try:
        if not RuntimeApi.polled.wait(30):
            sys.exit(f"{bootstrap} did not poll; is {policy} accepted?")
        return (RuntimeApi.at - begun) * 1000
    finally:
        process.kill()
        process.wait()


def main(bootstrap):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RuntimeApi)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        many = pathlib.Path(folder, "many.toml")
        many.write_text(rules(RULES))
        policies = {
            "built-in": "",
            "policy/policy.toml": str(pathlib.Path(__file__).parents[1] / "policy/policy.toml"),
            f"{RULES} rules, {many.stat().st_size // 1024} KiB": str(many),
        }
        times = {name: [] for name in policies}
        for _ in range(ROUNDS):
            for name, policy in policies.items():
                times[name].append(start(bootstrap, server.server_port, policy))
    base = statistics.median(times["built-in"])
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"{name:<24} median {median:6.2f} ms   {median - base:+.2f} ms   (of {len(measured)} starts)")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.environ["SAM_BOOTSTRAP"])
