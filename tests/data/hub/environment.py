"""Writes environment.json: what huggingface_hub 2.4.0, with httpx2 2.16.2, makes of environments.

    HF_HUB_OFFLINE=1 python environment.py > environment.json

In `caches`, `~root` is the home directory of root on the machine that runs this, /root. `@` stands for a directory that
is made anew, which holds the files of `TOKEN_FILES`.
"""

import json
import ntpath
import os
import posixpath
import subprocess
import sys
import tempfile
from pathlib import Path

CACHE = """
import os, sys
import huggingface_hub.constants as constants
import huggingface_hub.file_download as download
# As SentenceTransformer.__init__ reads it.
folder = os.getenv("SENTENCE_TRANSFORMERS_HOME")
def stop(**arguments):
    print(arguments["cache_dir"])
download._hf_hub_download_to_cache_dir = stop
try:
    download.hf_hub_download("org/name", "config.json", cache_dir=folder, local_files_only=True)
except RuntimeError as error:
    print("refused")
"""

TOKEN = """
from huggingface_hub.utils._headers import get_token_to_send
print(repr(get_token_to_send(None)))
"""

OFFLINE = "import huggingface_hub.constants as constants; print(constants.HF_HUB_OFFLINE)"

ENDPOINT = "import huggingface_hub.constants as constants; print(constants.ENDPOINT)"

PROXIES = """
import json, sys
import httpx2

class Client(httpx2.Client):
    def _init_proxy_transport(self, proxy, **_):
        return proxy

def shown(found):
    if not isinstance(found, httpx2.Proxy):
        return None
    url = str(found.url).rstrip("/")
    return url if found.auth is None else url + " " + ":".join(found.auth)

client = Client()
print(json.dumps([shown(client._transport_for_url(httpx2.URL(url))) for url in json.load(sys.stdin)]))
"""

HOME = {"HOME": "/home/someone"}

CACHES = [
    {},
    {"XDG_CACHE_HOME": "/xdg"},
    {"XDG_CACHE_HOME": "~/xdg"},
    {"XDG_CACHE_HOME": "$HOME/xdg"},
    {"HF_HOME": "$HOME/hf"},
    {"HF_HOME": "${HOME}/hf"},
    {"HF_HOME": "${HOME/hf"},
    {"HF_HOME": "$HOMEhf/x"},
    {"HF_HOME": "/a/$HOME"},
    {"HF_HOME": "$NOT_SET/hf"},
    {"HF_HOME": "/a/${NOT_SET}/$"},
    {"HF_HOME": "%HOME%/hf"},
    {"HF_HOME": "~/hf"},
    {"HF_HOME": "~"},
    {"HF_HOME": "~root/hf"},
    {"HF_HOME": "~root"},
    {"HF_HOME": "~nobody_of_that_name/hf"},
    {"HF_HOME": "a/~/hf"},
    {"HF_HOME": "$A", "A": "$B", "B": "/twice"},
    {"HF_HOME": "$A/x", "A": "~/in_a_variable"},
    {"HF_HOME": "$A/x", "A": "$B", "B": "$C", "C": "/thrice"},
    {"HF_HOME": "/hf", "XDG_CACHE_HOME": "/xdg"},
    {"HF_HUB_CACHE": "$HOME/hub"},
    {"HF_HUB_CACHE": "~root/hub"},
    {"HF_HUB_CACHE": "~/hub", "HF_HOME": "/hf"},
    {"HF_HUB_CACHE": "$A/hub", "A": "~"},
    {"HF_HUB_CACHE": "relative/hub"},
    {"HUGGINGFACE_HUB_CACHE": "$HOME/old"},
    {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "/new"},
    {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/hf"},
    {"SENTENCE_TRANSFORMERS_HOME": "~/st", "HF_HUB_CACHE": "/cache"},
    {"SENTENCE_TRANSFORMERS_HOME": "/x/$HOME/st"},
    {"SENTENCE_TRANSFORMERS_HOME": "~root/st"},
    {"SENTENCE_TRANSFORMERS_HOME": "~nobody_of_that_name/st"},
    {"TRANSFORMERS_CACHE": "/transformers", "PYTORCH_TRANSFORMERS_CACHE": "/pytorch"},
    {"HOME": "/home/with $B", "B": "blank"},
]

TOKEN_FILES = {"hf/token": "of_the_file\n", "broken": "\n of_the\r\n_broken_file \n", "blank": " \n"}

TOKENS = [
    {},
    {"HF_HOME": "@/hf"},
    {"HF_HOME": "$A/hf", "A": "@"},
    {"HF_TOKEN_PATH": "@/broken"},
    {"HF_TOKEN_PATH": "${A}/broken", "A": "@"},
    {"HF_TOKEN_PATH": "@/blank"},
    {"HF_TOKEN_PATH": "@/absent", "HF_HOME": "@/hf"},
    {"HOME": "@", "HF_TOKEN_PATH": "~/broken"},
    {"HF_HOME": "@/hf", "HF_TOKEN": "of_the_variable"},
    {"HF_HOME": "@/hf", "HF_TOKEN": ""},
    {"HF_HOME": "@/hf", "HF_TOKEN": " \n "},
    {"HF_HOME": "@/hf", "HF_TOKEN": " of_the_\r\nvariable\n"},
    {"HF_HOME": "@/hf", "HUGGING_FACE_HUB_TOKEN": "of_the_older"},
    {"HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": "of_the_older"},
    {"HF_TOKEN": " ", "HUGGING_FACE_HUB_TOKEN": "of_the_older", "HF_HOME": "@/hf"},
    {"HF_TOKEN": "newer", "HUGGING_FACE_HUB_TOKEN": "older"},
    {"HF_TOKEN": "t", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"},
    {"HF_TOKEN": "t", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"},
    {"HF_TOKEN": "t", "HF_HUB_DISABLE_IMPLICIT_TOKEN": " 1"},
]

OFFLINES = [
    {name: value}
    for name in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
    for value in ["1", "true", "Yes", "on", "0", "false", "", "2", "y", " 1", "1\n"]
] + [
    {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"},
    {"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": "1"},
    {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "0"},
]

ENDPOINTS = [
    {},
    {"HF_ENDPOINT": "https://mirror.example"},
    {"HF_ENDPOINT": "https://mirror.example/hf//"},
    {"HF_ENDPOINT": "http://127.0.0.1:8080/"},
]

URLS = [
    "https://huggingface.co/a",
    "http://huggingface.co/a",
    "https://cdn.huggingface.co/a",
    "https://nothuggingface.co/a",
    "https://HuggingFace.co:443/a",
    "https://huggingface.co:8443/a",
    "http://localhost:8080/a",
    "http://sub.localhost/a",
    "http://127.0.0.1:8080/a",
    "http://127.0.0.1/a",
    "http://192.168.3.4/a",
    "http://[::1]:8080/a",
    "http://[fe80::7]/a",
    "http://[2001:db8::1]/a",
]

BOTH = {"HTTP_PROXY": "http://plain:1", "HTTPS_PROXY": "http://secure:2"}
NO_PROXIES = [
    "huggingface.co",
    ".huggingface.co",
    "*.huggingface.co",
    "*huggingface.co",
    "HUGGINGFACE.CO",
    "huggingface.co.",
    "co",
    "*",
    "example.com, *",
    "",
    " , ,",
    "localhost",
    "LOCALHOST",
    "localhost:8080",
    "127.0.0.1",
    "127.0.0.1:8080",
    "127.0.0.0/8",
    "127.0.0.0/33",
    "127.0.0.0/255.0.0.0",
    "192.168.0.0/16,10.0.0.0/8",
    "192.168.3.5/0",
    "::1",
    "[::1]",
    "[::1]:8080",
    "[::1]:9090",
    "fe80::/10",
    "::/0",
    "::1/129",
    "huggingface.co:443",
    "huggingface.co:8443",
    ":8080",
    "https://huggingface.co",
    "https://huggingface.co:443",
    "http://huggingface.co",
    "https://",
    "http://",
    "all://",
    "http://*",
    "huggingface.co/a",
    "https://huggingface.co/a",
    "all://127.0.0.0/8",
    "huggingface.co:nonsense",
    "huggingface.co example.com",
    "hugging*",
    "a,localhost , 127.0.0.1 ,.huggingface.co",
]

PROXIES_OF = [
    {},
    BOTH,
    {"HTTP_PROXY": "http://plain:1"},
    {"HTTPS_PROXY": "http://secure:2"},
    {"ALL_PROXY": "http://all:3"},
    {"ALL_PROXY": "http://all:3", **BOTH},
    {"all_proxy": "http://all:3", "http_proxy": "http://plain:1"},
    {"https_proxy": "http://lower:2", "HTTPS_PROXY": "http://upper:2"},
    {"https_proxy": "", "HTTPS_PROXY": "http://upper:2"},
    {"https_proxy": "", "HTTPS_PROXY": "http://upper:2", "ALL_PROXY": "http://all:3"},
    {"Https_Proxy": "http://mixed:2"},
    {"HTTPS_proxy": "http://half:2", "HTTPS_PROXY": "http://upper:2"},
    {"HTTP_PROXY": "http://plain:1", "REQUEST_METHOD": "GET"},
    {"http_proxy": "http://plain:1", "REQUEST_METHOD": "GET"},
    {"HTTPS_PROXY": "http://secure:2", "REQUEST_METHOD": "GET"},
    {"HTTPS_PROXY": "secure:2"},
    {"HTTPS_PROXY": "secure.example"},
    {"HTTPS_PROXY": "http://me:secret@secure:2"},
    {"HTTPS_PROXY": "http://me%40example.com:se%2Fcr%20et@secure:2/"},
    {"HTTPS_PROXY": "http://me@secure:2"},
    {"HTTPS_PROXY": "me:secret@secure:2"},
    {"HTTPS_PROXY": "https://secure:2"},
    {"HTTPS_PROXY": "HTTP://secure:2"},
    {"ALL_PROXY": "socks5://socks:1080", "HTTPS_PROXY": "http://secure:2"},
    {"FTP_PROXY": "http://ftp:1"},
] + [{**BOTH, "NO_PROXY": no_proxy} for no_proxy in NO_PROXIES] + [
    {"ALL_PROXY": "http://all:3", "NO_PROXY": no_proxy} for no_proxy in ["https://", "all://", "::1,localhost"]
] + [
    {**BOTH, "no_proxy": "localhost", "NO_PROXY": "huggingface.co"},
    {**BOTH, "no_proxy": "", "NO_PROXY": "huggingface.co"},
    {**BOTH, "No_Proxy": "huggingface.co"},
]

PATHS = [
    "", "a", "~", "~/a", "~root", "~root/a", "~nobody_of_that_name/a", "a~", "/~/a", "$A", "$A/b", "${A}/b", "${A", "$", "$$",
    "$$A", "${}", "$A$B", "$A_", "$A-b", "${NOT SET}", "$NOT_SET/a", "$EMPTY/a", "a$A", "$ÄA", "%A%", "%A", "%A%B%", "%%A%%",
    "'$A'$A", "'$A", "~\\a", "~$A", "${A}}", "$A'%B%'",
]
VARIABLES = {"HOME": "/home/me", "A": "one", "B": "$A", "EMPTY": ""}
WINDOWS = {"USERPROFILE": "C:\\Users\\me", "USERNAME": "me", "A": "one", "B": "$A", "EMPTY": "", "A-b": "dash"}


def run(code, variables, stdin=None, directory=None):
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, input=stdin, capture_output=True, text=True, cwd=directory
    )
    assert done.returncode == 0, (variables, done.stderr)
    return done.stdout.rstrip("\n")


def caches():
    with tempfile.TemporaryDirectory() as directory:
        directory = os.path.realpath(directory)
        for variables in CACHES:
            variables = HOME | variables
            folder = run(CACHE, variables, directory=directory)
            # A relative one stays relative.
            yield {"variables": variables, "cache": folder.removeprefix(f"{directory}/")}


def tokens():
    for variables in TOKENS:
        with tempfile.TemporaryDirectory() as directory:
            for name, text in TOKEN_FILES.items():
                path = Path(directory, name)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(text.encode())
            filled = {name: value.replace("@", directory) for name, value in ({"HOME": "/nowhere"} | variables).items()}
            yield {"variables": {"HOME": "/nowhere"} | variables, "token": eval(run(TOKEN, filled))}


def proxies():
    for variables in PROXIES_OF:
        found = json.loads(run(PROXIES, variables, stdin=json.dumps(URLS)))
        yield {"variables": variables, "proxies": found}


def expanded(path, module, variables):
    os.environ.clear()
    os.environ.update(variables)
    return module.expandvars(module.expanduser(path))


def main():
    golden = {
        "caches": list(caches()),
        "token_files": TOKEN_FILES,
        "tokens": list(tokens()),
        "offline": [{"variables": it, "offline": run(OFFLINE, it) == "True"} for it in OFFLINES],
        "endpoints": [{"variables": it, "endpoint": run(ENDPOINT, it)} for it in ENDPOINTS],
        "urls": URLS,
        "proxies": list(proxies()),
        "posix": {"variables": VARIABLES, "paths": [[it, expanded(it, posixpath, VARIABLES)] for it in PATHS]},
        "windows": {"variables": WINDOWS, "paths": [[it, expanded(it, ntpath, WINDOWS)] for it in PATHS]},
    }
    lines = []
    for name, value in golden.items():
        if isinstance(value, list) and name != "urls":
            rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in value)
            lines.append(f' "{name}": [\n{rows}\n ]')
        else:
            lines.append(f' "{name}": {json.dumps(value, ensure_ascii=False)}')
    print("{\n" + ",\n".join(lines) + "\n}")


main()
