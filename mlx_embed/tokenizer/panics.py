"""Errors of the tokenizers library that are no Exception."""


def is_the_librarys(error: BaseException) -> bool:
    """Whether the library failed: by an Exception, or by a panic of its Rust code, which is a BaseException."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
