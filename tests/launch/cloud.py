"""A fake of Google Cloud, its hosts and SLURM, against which tests run the scripts of launch/."""

import json
import pathlib
import subprocess
import sys

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
SCRIPTS = sorted(path.name for path in LAUNCH.glob("*_pod.sh"))
VARIABLES = {
    "PROJECT": "my-project",
    "BUCKET": "gs://my-bucket",
    "REPOSITORY": "https://example.com/oneflow_jax",
    "ZONE": "us-central2-b",
    "NAME": "pod",
    "POLL": "0",
}
COMMANDS = (
    *("gcloud", "sudo", "systemctl", "systemd-run", "git", "uv", "curl"),
    *("srun", "scontrol"),
)
RESOURCES = ["gcloud", "compute", "tpus", "queued-resources"]
PLACE = ["--project=my-project", "--zone=us-central2-b"]

NOTHING = {"out": "", "error": "", "code": 0}


def make_reply(out):
    return {"out": out, "error": "", "code": 0}


def make_failure(error, code=1):
    return {"out": "", "error": error, "code": code}


NO_POD = make_failure(
    "ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource "
    "'projects/my-project/locations/us-central2-b/queuedResources/pod' was not found."
)
NO_PAGE = make_failure("ERROR: (gcloud.storage.ls) One or more URLs matched no objects.")
SSH_FAILED = make_failure("ssh: connect to host: timed out", 255)


class Cloud:
    """A folder of fake commands that record their calls.

    Attributes:
        home: home directory of the hosts' user.
    """

    def __init__(self, folder):
        self.home = folder / "home"
        self._bin = folder / "bin"
        self._folder = folder
        self._bin.mkdir()
        for command in COMMANDS:
            self._stand_in(self._bin / command)
        self._stand_in(self.home / "oneflow_jax/.venv/run/bin/python")
        self.answer({})

    def _stand_in(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        program = pathlib.Path(__file__).with_name("fake_gcloud.py").read_text()
        path.write_text(f"#!{sys.executable} -IS\n{program}")
        path.chmod(0o755)

    def answer(self, replies):
        """Set the replies: part of a call -> its replies in turn; the last reply repeats."""
        (self._folder / "answers").write_text(json.dumps(replies))

    def run(self, script, *arguments, **variables):
        """Run a script of launch/ with the environment `VARIABLES`, updated by `variables`."""
        return self._bash([str(LAUNCH / script), *arguments], VARIABLES | variables)

    def shell(self, command):
        """Run a shell command: one that ssh sends to a host, or one that --dry-run printed."""
        return self._bash(["bash", "-c", command], {})

    def _bash(self, words, variables):
        paths = {"PATH": f"{self._bin}:/usr/bin:/bin", "HOME": str(self.home)}
        return subprocess.run(
            words,
            env=paths | {"STAND_IN": str(self._folder)} | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def calls(self, *first):
        """Return the recorded calls that begin with these words."""
        path = self._folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for call in map(json.loads, lines) if call[: len(first)] == [*first]]

    def forget(self):
        (self._folder / "calls").unlink(missing_ok=True)

    def verbs(self):
        """List the operations on the pod: gcloud's verb, or the function that ssh runs."""
        done = []
        for call in self.calls(*RESOURCES):
            verb = call[len(RESOURCES)]
            done.append(remote(call).rpartition("}; ")[2].split()[0] if verb == "ssh" else verb)
        return done


def remote(call):
    """Return the command that a call of `gcloud ... ssh` runs on the hosts."""
    (command,) = [word for word in call if word.startswith("--command=")]
    return command.removeprefix("--command=")
