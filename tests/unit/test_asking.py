"""What is asked about a held call, what each answer would grant, and what counts as an answer."""

import pytest

from ipc.messages import Question
from ipc.policy.decision import PolicyDocument, compile_policy
from supervisor.run.asking import Answer, answer_line, choices, parse_answer, question_lines


def question(resource: str, action: str = "filesystem.read", kind: str = "file", nearest: str = "") -> Question:
    """A question as the warden sends it."""
    return Question("w", action, resource, "A1203", "no grant covers it", nearest, "openat2", kind)


@pytest.mark.parametrize(
    ("asked", "file", "directory"),
    [
        (question("/p/in/a.csv"), ["/p/in/a.csv"], "/p/in/"),
        (question("/p/in", kind="directory"), ["/p/in"], "/p/in/"),
        (question("/p/in", "filesystem.list", "directory"), ["/p/in", "/p/in/*"], "/p/in/"),
        (question("/p/new", "filesystem.write", "missing"), ["/p/new"], "/p/"),
        (question("/p/[x]*/${a}?"), ["/p/[[]x][*]/[$]{a}[?]"], "/p/[[]x][*]/"),
        (question("/p/two\nlines\u202e"), ["/p/two[! -\U0010ffff]lines[! -\u2027\u202f-\U0010ffff]"], "/p/"),
        (question("/a"), ["/a"], None),
        (question("/", "filesystem.list", "directory"), ["/", "/*"], None),
    ],
)
def test_an_answer_grants_the_thing_or_all_beneath_its_directory(
    asked: Question, file: list[str], directory: str | None
) -> None:
    """[f]ile is that one, [d]irectory what lies beneath, never all of `/`; every grant can be compiled."""
    found = {choice.answer: choice.grants for choice in choices(asked)}
    assert [grant.pattern_text for grant in found[Answer.FILE]] == file
    assert [grant.pattern_text for grant in found.get(Answer.DIRECTORY, ())] == ([directory] if directory else [])
    for grants in found.values():
        assert {grant.action for grant in grants} == {asked.action}
        compile_policy(PolicyDocument(component="p", instance="", grants=grants))


@pytest.mark.parametrize(
    ("typed", "resource", "answer"),
    [
        ("f", "/p/a", Answer.FILE),
        ("file", "/p/a", Answer.FILE),
        (" D \n", "/p/a", Answer.DIRECTORY),
        ("n", "/p/a", Answer.NO),
        ("QUIT", "/p/a", Answer.QUIT),
        ("d", "/a", None),
        ("", "/p/a", None),
        ("y", "/p/a", None),
        ("yes", "/p/a", None),
        ("fi", "/p/a", None),
        ("files", "/p/a", None),
        ("f f", "/p/a", None),
        ("ｆ", "/p/a", None),  # noqa: RUF001 # a letter that looks like f
    ],
)
def test_only_a_letter_or_its_word_is_an_answer(typed: str, resource: str, answer: Answer | None) -> None:
    """Anything else, and what wasn't offered, is none."""
    assert parse_answer(typed, choices(question(resource))) == answer


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (question("/p/a"), ["wants to read /p/a"]),
        (question("/p/a", "filesystem.write", "missing"), ["wants to create or change /p/a (doesn't exist)"]),
        (question("/p", "filesystem.list", "directory"), ["wants to see the names in /p (a directory)"]),
        (question("/p/a", nearest='read "/q"'), ['  nearest grant: read "/q"']),
        (question("/p/p\u0430y"), ["letters that may look like others: '/p/p\\u0430y'"]),
        (question("/p/" + "x" * 5_000), ["more characters"]),
    ],
)
def test_a_question_says_what_is_wanted(asked: Question, words: list[str]) -> None:
    """The deed, the thing, what stands there, and what is granted nearby."""
    text = "\n".join(question_lines("prog", asked))
    for each in words:
        assert each in text
    assert len(text) < 3_000


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nairssys: all is well", "\x9b31m", "\u202etxt", "\u200b", "\udcff"])
def test_a_name_can_not_write_to_the_terminal(name: str) -> None:
    """Neither the question nor the line for the answer holds what a terminal would act upon."""
    asked = question(f"/p/{name}/x", nearest=f'read "/p/{name}"')
    for line in (*question_lines("prog", asked), answer_line(choices(asked))):
        assert not any(character in line for character in "\x1b\n\x9b\u202e\u200b\udcff"), line


def test_the_directory_is_offered_by_its_name() -> None:
    """Where all beneath can be allowed, the line says beneath what; where it can't, it isn't offered."""
    assert "[d]irectory: all beneath /p/in" in answer_line(choices(question("/p/in/a")))
    assert "[d]" not in answer_line(choices(question("/a")))


def test_what_no_pattern_can_name_is_not_offered() -> None:
    """A name that is too long as a pattern can be refused, not allowed: its grant would end the program."""
    asked = question("/p/" + "/".join(["[" * 250] * 14))
    assert choices(asked) == ()
    assert "[f]" not in answer_line(())
    assert [parse_answer(text, ()) for text in "fdnq"] == [None, None, Answer.NO, Answer.QUIT]
