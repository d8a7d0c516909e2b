"""Hosts of a TPU pod, as Google's metadata server describes them, find one another."""

import contextlib
import http.server
import os
import subprocess
import sys
import threading

from oneflow_jax import processes
from tests.processes import pods

HOST = """
import os
from jax._src.clusters import cloud_tpu_cluster
import jax
# As JAX finds it where there are TPUs.
cloud_tpu_cluster.running_in_cloud_tpu_vm = True
os.environ.pop("TPU_SKIP_MDS_QUERY", None)
from oneflow_jax import processes
processes.TPUS = ("/",)
processes.join()
jax.config.update("jax_platforms", "cpu")
print(jax.process_index(), jax.process_count(), processes.several(), processes.leads())
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


def hosts(count):
    """What each of so many hosts says of itself."""
    never = (*processes.ENVIRONMENT, "JAX_PLATFORMS")
    environment = {name: value for name, value in os.environ.items() if name not in never}
    environment["JAX_COORDINATOR_PORT"] = str(pods.free_port())
    with contextlib.ExitStack() as servers:
        begun = [
            subprocess.Popen(
                [sys.executable, "-c", HOST],
                env=environment
                | {"GCE_METADATA_IP": servers.enter_context(metadata(number, count))},
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(count)
        ]
        return [process.communicate(timeout=pods.PATIENCE)[0].split() for process in begun]


def test_two_hosts_are_one_run():
    assert hosts(2) == [["0", "2", "True", "True"], ["1", "2", "True", "False"]]


def test_one_host_is_alone():
    assert hosts(1) == [["0", "1", "False", "True"]]
