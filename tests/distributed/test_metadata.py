"""Tests that TPU hosts find each other through Google's metadata server."""

import contextlib
import http.server
import os
import subprocess
import sys
import threading

from oneflow_jax.runtime import distributed
from tests import runs
from tests.distributed import pods

HOST = """
import os
from jax._src.clusters import cloud_tpu_cluster
import jax
# On a TPU host, JAX sets this variable to True.
cloud_tpu_cluster.running_in_cloud_tpu_vm = "GCE_METADATA_IP" in os.environ
os.environ.pop("TPU_SKIP_MDS_QUERY", None)
from oneflow_jax.runtime import distributed
distributed._running_on_tpu = lambda: True
distributed.initialize()
jax.config.update("jax_platforms", "cpu")
print(jax.distributed.is_initialized(), jax.process_index(), jax.process_count())
print(distributed.is_multi_process(), distributed.is_primary())
"""


@contextlib.contextmanager
def metadata_server(index, num_hosts):
    """Serve a host's index and the addresses of all hosts; yield the server's address."""
    attributes = {
        "agent-worker-number": str(index),
        "worker-network-endpoints": ",".join(["unknown:unknown:127.0.0.1"] * num_hosts),
        "tpu-env": f"WORKER_ID: '{index}'\nACCELERATOR_TYPE: 'v4-16'",
    }

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix("/computeMetadata/v1/instance/attributes/")
            known = self.headers["Metadata-Flavor"] == "Google" and name in attributes
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(attributes.get(name, "").encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def clean_environment():
    """Return the environment without variables about processes and devices."""
    never = (*distributed.ENV_VARS, "JAX_PLATFORMS", "GCE_METADATA_IP")
    return {name: value for name, value in os.environ.items() if name not in never}


def run_hosts(num_hosts):
    """Start `num_hosts` hosts and return what each prints about itself."""
    environment = clean_environment() | {"JAX_COORDINATOR_PORT": str(pods.find_free_port())}
    with contextlib.ExitStack() as servers:
        processes = [
            start_host(
                environment
                | {"GCE_METADATA_IP": servers.enter_context(metadata_server(n, num_hosts))}
            )
            for n in range(num_hosts)
        ]
        return [process.communicate(timeout=runs.TIMEOUT_S)[0].split() for process in processes]


def start_host(env):
    command = [sys.executable, "-c", HOST]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def test_two_hosts_are_one_run():
    primary, secondary = run_hosts(2)
    assert primary == ["True", "0", "2", "True", "True"]
    assert secondary == ["True", "1", "2", "True", "False"]


def test_single_host_has_one_process():
    assert run_hosts(1) == [["True", "0", "1", "False", "True"]]


def test_host_without_a_pod_joins_no_cluster():
    """Check a single TPU host without a pod: it joins no cluster and sends no metadata request."""
    output, _ = start_host(clean_environment()).communicate(timeout=runs.TIMEOUT_S)
    assert output.split() == ["False", "0", "1", "False", "True"]
