"""Hosts of a TPU pod, as Google's metadata server describes them, find one another."""

import contextlib
import http.server
import os
import subprocess
import sys
import threading

from oneflow_jax.runtime import distributed
from tests.distributed import pods

HOST = """
import os
from jax._src.clusters import cloud_tpu_cluster
import jax
# As JAX finds it where there are TPUs.
cloud_tpu_cluster.running_in_cloud_tpu_vm = "GCE_METADATA_IP" in os.environ
os.environ.pop("TPU_SKIP_MDS_QUERY", None)
from oneflow_jax import processes
processes._on_tpus = lambda: True
processes.join()
jax.config.update("jax_platforms", "cpu")
print(jax.distributed.is_initialized(), jax.process_index(), jax.process_count())
print(processes.several(), processes.leads())
"""


@contextlib.contextmanager
def metadata(number, hosts):
    """The address of a server that tells a host its number, and where all of them are."""
    told = {
        "agent-worker-number": str(number),
        "worker-network-endpoints": ",".join(["unknown:unknown:127.0.0.1"] * hosts),
        "tpu-env": f"WORKER_ID: '{number}'\nACCELERATOR_TYPE: 'v4-16'",
    }

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix("/computeMetadata/v1/instance/attributes/")
            known = self.headers["Metadata-Flavor"] == "Google" and name in told
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(told.get(name, "").encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def bare():
    """The environment, with nothing of processes and devices."""
    never = (*distributed.ENVIRONMENT, "JAX_PLATFORMS", "GCE_METADATA_IP")
    return {name: value for name, value in os.environ.items() if name not in never}


def hosts(count):
    """What each of so many hosts says of itself."""
    environment = bare() | {"JAX_COORDINATOR_PORT": str(pods.free_port())}
    with contextlib.ExitStack() as servers:
        begun = [
            started(environment | {"GCE_METADATA_IP": servers.enter_context(metadata(n, count))})
            for n in range(count)
        ]
        return [process.communicate(timeout=pods.PATIENCE)[0].split() for process in begun]


def started(environment):
    command = [sys.executable, "-c", HOST]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_two_hosts_are_one_run():
    leader, other = hosts(2)
    assert leader == ["True", "0", "2", "True", "True"]
    assert other == ["True", "1", "2", "True", "False"]


def test_one_host_is_alone():
    assert hosts(1) == [["True", "0", "1", "False", "True"]]


def test_a_host_of_no_pod_joins_nobody():
    """It has files like those of TPUs, and JAX asks nobody about it."""
    told, _ = started(bare()).communicate(timeout=pods.PATIENCE)
    assert told.split() == ["False", "0", "1", "False", "True"]
