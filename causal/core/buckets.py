"""Random hash buckets: the number of a value's bucket, the same in Spark and here.

The hash is XXH64 (Collet 2012) as Spark's `xxhash64` computes it: the salt is hashed with the seed
42, the value with the hash of the salt as its seed, and the signed result is taken modulo the
number of buckets. Whole numbers and flags are hashed as 64-bit integers whatever their type, other
numbers as doubles, text as its UTF-8 bytes; so a column that pandas holds as 7.0 for want of a null
has the buckets of the 7 in a table.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.core.frames import HashBucket

Hashes = NDArray[np.uint64]

HASHED_KINDS = frozenset({"number", "boolean", "string"})

_SEED = np.uint64(42)
_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(prime)
    for prime in (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
)
_STRIPE, _LANES, _WORD, _HALF = 32, 4, 8, 4
_LARGEST_WHOLE = 2.0**53


def bucket_numbers(column: "pd.Series[Any]", bucket: HashBucket) -> NDArray[np.int64]:
    """The bucket of each value, shape (n,); -1 where the value is missing.

    Args:
        column: Numbers, flags or text.
        bucket: How many buckets, and the salt.
    """
    hashes = value_hashes(column, salt=bucket.salt)
    found = np.mod(hashes.view(np.int64), np.int64(bucket.n_buckets))
    return np.where(np.asarray(column.isna()), np.int64(-1), found)


def value_hashes(column: "pd.Series[Any]", *, salt: int) -> Hashes:
    """The salted hash of each value, shape (n,); whatever it is where the value is missing."""
    seed = _hash_words(_signed([salt]), np.array([_SEED]))
    values = column.cat.categories.to_series() if _is_categorical(column) else column
    codes, distinct = pd.factorize(values, use_na_sentinel=True)
    hashed = _hash_values(distinct, seed)
    found = np.append(hashed, np.uint64(0))[codes]
    if _is_categorical(column):
        found = np.append(found, np.uint64(0))[np.asarray(column.cat.codes)]
    return np.asarray(found, dtype=np.uint64)


def _is_categorical(column: "pd.Series[Any]") -> bool:
    return isinstance(column.dtype, pd.CategoricalDtype)


def _hash_values(values: Any, seed: Hashes) -> Hashes:
    if pd.api.types.is_integer_dtype(values) or pd.api.types.is_bool_dtype(values):
        return _hash_words(np.asarray(values, dtype=np.int64).view(np.uint64), seed)
    if pd.api.types.infer_dtype(values, skipna=True) in {"string", "empty"}:
        return _hash_texts([str(value).encode() for value in values], seed)
    integers = [isinstance(value, int | np.integer) for value in values]
    numbers = np.asarray(values, dtype=np.float64)
    is_whole = (numbers == np.floor(numbers)) & (np.abs(numbers) < _LARGEST_WHOLE)
    words = np.where(is_whole, numbers, 0.0).astype(np.int64).view(np.uint64)
    words = np.where(is_whole, words, numbers.view(np.uint64))
    for at in np.flatnonzero(integers):
        words[at] = _signed([int(values[at])])[0]
    return _hash_words(words, seed)


def _signed(values: list[int]) -> Hashes:
    return np.array(values, dtype=np.int64).view(np.uint64)


def _hash_words(words: Hashes, seed: Hashes) -> Hashes:
    """XXH64 of 8 bytes each."""
    with np.errstate(over="ignore"):
        start = np.broadcast_to(seed + _P5 + np.uint64(_WORD), words.shape)
        return _finished(_mixed_word(start, words))


def _hash_texts(texts: list[bytes], seed: Hashes) -> Hashes:
    """XXH64 of byte strings, all of one length at a time."""
    found = np.zeros(len(texts), dtype=np.uint64)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    for length in np.unique(lengths):
        at = np.flatnonzero(lengths == length)
        joined = np.frombuffer(b"".join(texts[i] for i in at), dtype=np.uint8)
        with np.errstate(over="ignore"):
            found[at] = _hash_rows(joined.reshape(len(at), length), seed)
    return found


def _hash_rows(rows: NDArray[np.uint8], seed: Hashes) -> Hashes:
    n, length = rows.shape
    n_striped = length - length % _STRIPE
    state = np.broadcast_to(seed + _P5, (n,))
    if n_striped:
        words = np.ascontiguousarray(rows[:, :n_striped]).view("<u8").astype(np.uint64)
        state = _hash_stripes(words, np.broadcast_to(seed, (n,)))
    state = state + np.uint64(length)
    at = n_striped
    while at + _WORD <= length:
        word = np.ascontiguousarray(rows[:, at : at + _WORD]).view("<u8")[:, 0]
        state = _mixed_word(state, word.astype(np.uint64))
        at += _WORD
    if at + _HALF <= length:
        half = np.ascontiguousarray(rows[:, at : at + _HALF]).view("<u4")[:, 0]
        state = _turned(state ^ (half.astype(np.uint64) * _P1), 23) * _P2 + _P3
        at += _HALF
    for last in range(at, length):
        state = _turned(state ^ (rows[:, last].astype(np.uint64) * _P5), 11) * _P1
    return _finished(state)


def _hash_stripes(words: Hashes, seed: Hashes) -> Hashes:
    """The four lanes over whole stripes of 32 bytes, merged; `words` has shape (n, 4 k)."""
    zero = np.uint64(0)
    lanes = [seed + _P1 + _P2, seed + _P2, seed + zero, seed - _P1]
    for start in range(0, words.shape[1], _LANES):
        lanes = [_round(lane, words[:, start + i]) for i, lane in enumerate(lanes)]
    turns = (1, 7, 12, 18)
    state = sum((_turned(lane, by) for lane, by in zip(lanes, turns, strict=True)), start=zero)
    for lane in lanes:
        state = (state ^ _round(np.zeros_like(lane), lane)) * _P1 + _P4
    return np.asarray(state, dtype=np.uint64)


def _round(lane: Hashes, word: Hashes) -> Hashes:
    return _turned(lane + word * _P2, 31) * _P1


def _mixed_word(state: Hashes, word: Hashes) -> Hashes:
    return _turned(state ^ _round(np.zeros_like(word), word), 27) * _P1 + _P4


def _turned(value: Hashes, by: int) -> Hashes:
    """Bits rotated to the left."""
    return (value << np.uint64(by)) | (value >> np.uint64(64 - by))


def _finished(state: Hashes) -> Hashes:
    state = (state ^ (state >> np.uint64(33))) * _P2
    state = (state ^ (state >> np.uint64(29))) * _P3
    return state ^ (state >> np.uint64(32))
