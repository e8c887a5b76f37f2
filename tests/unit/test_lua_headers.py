from __future__ import annotations

import re
from importlib.resources import files

import pytest

MAX_LINES = 60
COMMANDS = sorted(
    file.name for file in files("emarsys_cdp.store").joinpath("lua").iterdir() if file.name.endswith(".lua")
)
GOOD = """#!lua
--[[
Count.

KEYS[1]  a counter
ARGV[1]  by how much

Returns
  1  counted
  0  there is no counter
]]
local key, step = KEYS[1], ARGV[1]
if redis.call('EXISTS', key) == 0 then
  return 0
end
redis.call('INCRBY', key, step)
return 1
"""

_HEADER = re.compile(r"#!lua\n--\[\[\n(?P<what>.+?)\n\]\]\n(?P<body>.+)\Z", re.DOTALL)
_DESCRIBED = re.compile(r"^((?:KEYS|ARGV)\[\d+\+?\])  +\S", re.MULTILINE)
_USED = re.compile(r"(?:KEYS|ARGV)\[\d+\+?\]")
_ANY_USE = re.compile(r"\b(?:KEYS|ARGV)\b")
_CODE = re.compile(r"^  (\S+)  \S", re.MULTILINE)
_RETURNED = re.compile(r"\breturn\b[ \t]*([^\n]*)")


def problems(source: str) -> list[str]:
    """Return what is wrong with the header of a Lua command."""
    match = _HEADER.match(source)
    if match is None:
        return ["does not begin with #!lua and a comment"]
    what, body = match["what"], match["body"]
    head, _, codes = what.partition("\nReturns\n")
    found = [f"more than {MAX_LINES} lines"] if len(source.splitlines()) > MAX_LINES else []
    found += [] if what[0].isupper() and head.split("\n\n")[0].endswith(".") else ["does not say what it does"]
    described = set(_DESCRIBED.findall(head))
    body = _name_lists(described, body)
    used = set(_USED.findall(body))
    if len(_ANY_USE.findall(body)) != len(_USED.findall(body)):
        found.append("uses KEYS or ARGV without a number")
    found += _difference("parameter", described, used)
    return found + _difference("code", set(_CODE.findall(codes)), {code.strip() for code in _RETURNED.findall(body)})


def _name_lists(described: set[str], body: str) -> str:
    """Write `KEYS[4+]` for what is used one after the other by a counter, where the header describes such a list."""
    for name in described:
        if name.endswith("+]"):
            body = re.sub(rf"#{name[:4]}\b", "", body)
            body = re.sub(rf"\b{name[:4]}\[(?!\d+\])[^\]]+\]", name, body)
    return body


def _difference(kind: str, described: set[str], used: set[str]) -> list[str]:
    return [f"{kind} {name} is not described" for name in sorted(used - described)] + [
        f"{kind} {name} is not used" for name in sorted(described - used)
    ]


def test_commands_exist() -> None:
    """The commands of the store are found where these tests look for them."""
    assert {"claim.lua", "commit.lua"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_header(name: str) -> None:
    """The header of a command is its interface: what it does, all keys and arguments, all returned codes."""
    source = files("emarsys_cdp.store").joinpath("lua", name).read_text()

    assert problems(source) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("#!lua\n", "", "does not begin with #!lua and a comment"),
        ("#!lua\n", "\n#!lua\n", "does not begin with #!lua and a comment"),
        ("--[[", "-- [", "does not begin with #!lua and a comment"),
        ("Count.\n", "", "does not say what it does"),
        ("ARGV[1]  by how much\n", "", "parameter ARGV[1] is not described"),
        ("ARGV[1]  by how much\n", "ARGV[1]\n", "parameter ARGV[1] is not described"),
        ("KEYS[1]  a counter\n", "KEYS[1]  a counter\nKEYS[2]  another\n", "parameter KEYS[2] is not used"),
        (", ARGV[1]\n", ", ARGV[2]\n", "parameter ARGV[2] is not described"),
        ("KEYS[1], ARGV[1]\n", "unpack(KEYS), ARGV[1]\n", "uses KEYS or ARGV without a number"),
        ("  0  there is no counter\n", "", "code 0 is not described"),
        ("return 0\n", "return 1\n", "code 0 is not used"),
        ("EXISTS', key", "EXISTS', KEYS[step]", "uses KEYS or ARGV without a number"),
        ("EXISTS', key", "EXISTS', #KEYS", "uses KEYS or ARGV without a number"),
        ("KEYS[1]  a counter\n", "KEYS[1]  a counter\nKEYS[2+]  others\n", "parameter KEYS[2+] is not used"),
        ("return 1\n", "return -1\n", "code -1 is not described"),
        ("return 1\n", "\n" * MAX_LINES + "return 1\n", f"more than {MAX_LINES} lines"),
    ],
    ids=lambda value: ascii(value)[:50],
)
def test_the_check_finds(old: str, new: str, problem: str) -> None:
    """The check itself accepts a good header and finds each kind of fault."""
    assert old in GOOD

    assert problems(GOOD) == []
    assert problem in problems(GOOD.replace(old, new))
