"""The holder of places and a request's end: Triton's request is not asked about once it is over, which would end the server."""

import threading

from faceclip_serving.models.holder import Holder


def test_a_drop_waits_for_the_look_at_its_caller_and_none_follows():
    looking, may_end, dropped, looks = threading.Event(), threading.Event(), threading.Event(), []

    def has_left():
        looks.append(dropped.is_set())
        looking.set()
        may_end.wait(10)
        return False

    holder = Holder(lambda operation: {"round_s": 0.0})
    holder.hold("place", has_left)
    assert looking.wait(10)
    dropping = threading.Thread(target=lambda: (holder.drop("place"), dropped.set()))
    dropping.start()
    assert not dropped.wait(0.2), "the look is not over"
    may_end.set()
    assert dropped.wait(10)
    threading.Event().wait(0.2)  # some looks long, were there any
    holder.stop()
    assert looks == [False] * len(looks)
