"""One timer ends all that took too long, each at its time."""

from __future__ import annotations

import asyncio

from reco_plugin.serve.timeouts import Timeouts


def test_those_that_do_not_end_are_over_in_their_order_and_no_others():
    async def run() -> tuple[list[str], list[str]]:
        over, done = list[str](), asyncio.Event()

        def note(one: str) -> None:
            over.append(one)
            if one == "begun anew":
                done.set()

        limit = Timeouts(0.02, note)
        for one in ("ended", "begun anew", "first", "second"):
            limit.begin(one)
        limit.end("ended")
        limit.end("never begun")
        limit.begin("begun anew")
        assert [one for one in ("ended", "begun anew", "first") if one in limit] == ["begun anew", "first"]
        await done.wait()
        once = [*over]
        done.clear()
        limit.begin("begun anew")  # when none was left
        await done.wait()
        return once, over

    once, over = asyncio.run(asyncio.wait_for(run(), 60))
    assert once == ["first", "second", "begun anew"]
    assert over == [*once, "begun anew"]


def test_many_have_one_timer():
    async def run() -> int:
        limit, timers = Timeouts(60, print), 0
        loop = asyncio.get_running_loop()
        later = loop.call_later

        def count(*given: object) -> asyncio.TimerHandle:
            nonlocal timers
            timers += 1
            return later(*given)  # type: ignore[arg-type]

        loop.call_later = count  # type: ignore[method-assign]
        for one in range(100):
            limit.begin(str(one))
            limit.end(str(one - 1))
        return timers

    assert asyncio.run(asyncio.wait_for(run(), 60)) == 1


def test_one_that_is_over_may_end_others_or_begin_again():
    async def run() -> list[str]:
        over, done = list[str](), asyncio.Event()

        def note(one: str) -> None:
            over.append(one)
            limit.end("other")
            if len(over) == 1:
                limit.begin(one)
            else:
                done.set()

        limit = Timeouts(0.01, note)
        limit.begin("one")
        await asyncio.sleep(0.005)
        limit.begin("other")
        await done.wait()
        return over

    assert asyncio.run(asyncio.wait_for(run(), 60)) == ["one", "one"]


def test_one_whose_end_fails_keeps_no_other():
    async def run() -> tuple[list[str], list[str]]:
        over, told, done = list[str](), list[str](), asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context["exception"])))

        def note(one: str) -> None:
            if one == "broken":
                raise ValueError(one)
            over.append(one)
            done.set()

        limit = Timeouts(0.01, note)
        limit.begin("broken")
        limit.begin("other")
        await asyncio.wait_for(done.wait(), 60)
        return over, told

    assert asyncio.run(asyncio.wait_for(run(), 60)) == (["other"], ["broken"])
