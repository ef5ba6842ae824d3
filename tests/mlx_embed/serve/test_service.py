"""How threads that compute end waits of the event loop."""

import asyncio
import threading

from mlx_embed.serve.service import Mailbox, Over


class Loop(asyncio.SelectorEventLoop):
    """Counts how often it is woken."""

    calls = 0

    def call_soon_threadsafe(self, *arguments, **options):  # type: ignore[no-untyped-def]
        self.calls += 1
        return super().call_soon_threadsafe(*arguments, **options)


def test_waits_that_end_together_wake_the_loop_once() -> None:
    loop = Loop()
    mailbox, waits = Mailbox(loop), [Over(loop) for _ in range(50)]

    async def main() -> int:
        for over in waits[:20]:
            mailbox.put(over, "what a future passes on")
        await asyncio.wait_for(asyncio.gather(*(over.future for over in waits[:20])), 10)
        return loop.calls

    assert loop.run_until_complete(main()) == 1
    assert not any(over.future.done() for over in waits[20:])
    loop.close()
    mailbox.put(waits[20])  # nobody waits any more


def test_no_wait_is_forgotten() -> None:
    """Threads put while the loop takes out."""
    loop = asyncio.new_event_loop()
    mailbox, waits = Mailbox(loop), [[Over(loop) for _ in range(2000)] for _ in range(3)]
    threads = [threading.Thread(target=lambda part=part: [mailbox.put(over) for over in part]) for part in waits]

    async def main() -> None:
        for thread in threads:
            thread.start()
        await asyncio.wait_for(asyncio.gather(*(over.future for part in waits for over in part)), 20)

    loop.run_until_complete(main())
    for thread in threads:
        thread.join()
    loop.close()


def test_a_wait_ends_once() -> None:
    loop = asyncio.new_event_loop()
    over = Over(loop)
    over()
    over("again")
    assert over.future.done()
    loop.close()
