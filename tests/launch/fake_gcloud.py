"""A fake command that records its calls and prints prepared replies.

`cloud.Cloud` copies this file under each command's name. The environment variable STAND_IN names
the folder of replies.
"""

import json
import os
import pathlib
import sys

folder = pathlib.Path(os.environ["STAND_IN"])
name, *arguments = call = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
with (folder / "calls").open("a") as file:
    file.write(json.dumps(call) + "\n")

if name == "sudo":
    os.execvp(arguments[0], arguments)
if name == "systemd-run":
    options = [argument for argument in arguments if argument.startswith("--")]
    os.chdir(dict(option.split("=", 1) for option in options)["--working-directory"])
    os.execvp(arguments[len(options)], arguments[len(options) :])

answers = json.loads((folder / "answers").read_text())
for part, replies in answers.items():
    if part in " ".join(call):
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        (folder / "answers").write_text(json.dumps(answers))
        print(reply["out"])
        print(reply["error"], file=sys.stderr)
        sys.exit(reply["code"])
