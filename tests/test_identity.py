"""New faces: strangers to everyone in the video, alike in sex and age, decided by the key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidanon.errors import ModelsError, SettingsError, UnsafeError
from vidanon.identity.bank import ANCESTRIES, LOOK_WEIGHT, load_bank
from vidanon.identity.choose import NEAR_AGE_YEARS, OTHERS_LIMIT, SOURCE_LIMITS, Profile, choose, load_key
from vidanon.types import Float

KEY = b"0123456789abcdef"


def person(seed: int, like: int | None = None) -> Profile:
    """A made-up person; ``like`` starts from someone of the bank, so that sex and age are plain."""
    random = np.random.default_rng(seed)
    bank = load_bank()
    like = int(random.integers(len(bank))) if like is None else like
    embedding = bank.embeddings[like] + random.normal(0, 0.05, 128).astype(np.float32)
    return Profile((embedding / np.linalg.norm(embedding)).astype(np.float32), bank.skin_lab[like])


def people(count: int) -> dict[int, Profile]:
    return {number: person(100 + number) for number in range(count)}


def vectors(profiles: dict[int, Profile], key: bytes) -> Float:
    return np.stack([code.vector for code in choose(profiles, key).values()])


@settings(max_examples=15)
@given(key=st.binary(min_size=16, max_size=64))
def test_same_key_gives_the_same_faces_byte_for_byte(key: bytes) -> None:
    profiles = people(4)
    first, second = choose(profiles, key), choose(dict(reversed(profiles.items())), key)
    assert {n: (c.name, c.vector.tobytes()) for n, c in first.items()} == {
        n: (c.name, c.vector.tobytes()) for n, c in second.items()
    }


def test_different_keys_give_different_faces() -> None:
    names = {choose({0: person(1)}, KEY + bytes([n]))[0].name for n in range(40)}
    assert len(names) >= 20


def test_two_keys_seldom_lead_to_one_face_or_to_two_that_are_alike() -> None:
    keys = [KEY + bytes([n]) for n in range(16)]
    same, alike = [], []
    for number in range(12):
        vectors_by_key = np.stack([vectors({0: person(300 + number)}, key)[0] for key in keys])
        likeness = (vectors_by_key @ vectors_by_key.T)[np.triu_indices(len(keys), 1)]
        same.append(np.mean(likeness > 0.999))
        alike.append(np.mean(likeness))
    assert np.mean(same) < 0.025
    assert np.mean(alike) < 0.23, "two people of the bank are .19 alike"


def test_people_who_resemble_each_other_seldom_share_a_face_under_one_key() -> None:
    bank = load_bank()
    alike = (bank.female < 0.2) & (bank.ancestry.argmax(axis=1) == 0) & (np.abs(bank.age - 35) < 5)
    men = np.flatnonzero(alike & ~bank.child)[:60]
    assert len(men) == 60
    names = {choose({0: Profile(bank.embeddings[row], bank.skin_lab[row])}, KEY)[0].name for row in men}
    assert len(names) >= 35


@settings(max_examples=15)
@given(key=st.binary(min_size=16, max_size=32), count=st.integers(1, 8))
def test_new_faces_are_strangers_to_everyone_in_the_video(key: bytes, count: int) -> None:
    profiles = people(count)
    codes = choose(profiles, key)
    assert sorted(codes) == list(range(count))
    assert len({code.name for code in codes.values()}) == count
    new = np.stack([codes[n].vector for n in range(count)])
    old = np.stack([profiles[n].embedding for n in range(count)])
    to_old, to_new = new @ old.T, new @ new.T
    assert np.allclose(np.diag(to_new), 1, atol=1e-3)
    assert np.diag(to_old).max() < SOURCE_LIMITS[-1]
    off = ~np.eye(count, dtype=bool)
    assert max(to_old[off], default=0) < OTHERS_LIMIT
    assert max(to_new[off], default=0) < OTHERS_LIMIT


@pytest.mark.parametrize("seed", range(10))
def test_sex_and_age_group_are_kept(seed: int) -> None:
    bank = load_bank()
    profile = person(seed)
    code = choose({0: profile}, KEY)[0]
    row = int(code.name.removeprefix("bank-"))
    reading = bank.read(profile.embedding, profile.look)
    assert (bank.female[row] > 0.5) == (reading.female > 0.5)
    if reading.child:
        assert bank.child[row] or abs(bank.age[row] - reading.age) < NEAR_AGE_YEARS
    else:
        assert not bank.child[row], "an adult never gets a child's face"


def test_men_and_women_of_the_bank_are_told_apart() -> None:
    bank = load_bank()
    sure = np.flatnonzero((bank.female < 0.1) | (bank.female > 0.9))[:200]
    read = np.array([bank.read(bank.embeddings[row]).female for row in sure])
    assert ((read > 0.5) == (bank.female[sure] > 0.5)).mean() > 0.9


def test_the_bank_has_people_of_every_kind() -> None:
    bank = load_bank()
    kinds = {
        "men": bank.female < 0.3,
        "women": bank.female > 0.7,
        "children": bank.child,
        "over 60": bank.age >= 60,
        "dark": bank.skin_lab[:, 0] < 48,
        "bearded": bank.beard > 0.5,
        "with glasses": bank.glasses > 0.5,
    }
    kinds |= {name: bank.ancestry.argmax(axis=1) == n for n, name in enumerate(ANCESTRIES)}
    assert len(bank) >= 3000
    assert {name: int(rows.sum()) for name, rows in kinds.items() if rows.sum() < 100} == {}
    adults = ~bank.child
    assert (np.abs(bank.female[adults] - 0.5) > 0.15).all()


@pytest.mark.parametrize("tone", [(75.0, 10.0, 14.0), (40.0, 14.0, 18.0)])
def test_skin_tone_and_ancestry_are_kept(tone: tuple[float, float, float]) -> None:
    bank = load_bank()
    stranger = np.random.default_rng(3).normal(0, 1, 128).astype(np.float32)
    skin = np.array(tone, np.float32)
    profile = Profile(stranger / np.linalg.norm(stranger), skin)
    chosen = [bank.index(choose({0: profile}, KEY + bytes([n]))[0].name) for n in range(20)]
    off_skin = np.linalg.norm(bank.skin_lab - skin, axis=1)
    off_ancestry = np.abs(bank.ancestry - bank.read(profile.embedding).ancestry).sum(axis=1)
    assert off_skin[chosen].mean() < 0.7 * off_skin.mean()
    assert off_ancestry[chosen].mean() < off_ancestry.mean()


def looking_like(row: int, embedding: Float) -> Float:
    """Return a look, unit length, that is read as the person of the bank is labelled."""
    bank = load_bank()
    readers = bank.reader[128:-1] * LOOK_WEIGHT
    wanted = bank.labels[row] - (embedding @ bank.reader[:128] + bank.reader[-1])
    look = np.linalg.lstsq(readers.T, wanted, rcond=None)[0]
    unread = np.linalg.svd(readers.T)[2][-1]  # changes nothing of what is read
    return np.asarray(look + unread * np.sqrt(1 - look @ look), np.float32)


@pytest.mark.parametrize("ancestry", range(len(ANCESTRIES)), ids=ANCESTRIES)
def test_most_people_get_a_face_of_their_own_ancestry(ancestry: int) -> None:
    bank = load_bank()
    kept = []
    for row in np.flatnonzero((bank.ancestry[:, ancestry] > 0.8) & ~bank.child)[:20]:
        noisy = bank.embeddings[row] + np.random.default_rng(row).normal(0, 0.05, 128)
        embedding = (noisy / np.linalg.norm(noisy)).astype(np.float32)
        profile = Profile(embedding, bank.skin_lab[row], looking_like(row, embedding))
        code = choose({0: profile}, KEY)[0]
        kept.append(bank.ancestry[bank.index(code.name)].argmax() == ancestry)
    assert np.mean(kept) >= 0.6


def test_reading_does_not_depend_on_the_length_of_the_look() -> None:
    bank = load_bank()
    look = np.random.default_rng(0).uniform(0, 1, 256).astype(np.float32)
    whole, part = (bank.read(bank.embeddings[0], look * length) for length in (1, np.float32(0.9)))
    assert whole.female == pytest.approx(part.female, abs=1e-4)
    assert whole.ancestry.sum() == pytest.approx(1, abs=1e-3)


def test_unknown_skin_tone_does_not_stop_the_choice() -> None:
    assert choose({3: Profile(person(1).embedding, np.full(3, np.nan, np.float32))}, KEY).keys() == {3}


def test_no_choice_without_a_valid_embedding() -> None:
    broken = Profile(np.full(128, np.nan, np.float32), np.zeros(3, np.float32))
    with pytest.raises(UnsafeError, match="person 7"):
        choose({7: broken}, KEY)


def test_codes_fit_the_mapper() -> None:
    code = choose({0: person(5)}, KEY)[0]
    assert code.vector.shape == (128,) and code.vector.dtype == np.float32
    assert np.linalg.norm(code.vector) == pytest.approx(1, abs=1e-3)
    assert code.w is not None and code.w.shape == (512,) and code.w.dtype == np.float32


def test_nobody_gives_nothing() -> None:
    assert choose({}, KEY) == {}


def test_keys(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(KEY)
    assert load_key(str(file)) == KEY
    assert load_key("") != load_key("") and len(load_key("")) == 32


def test_bad_keys_are_refused(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"secret")
    with pytest.raises(SettingsError, match="16 or more"):
        load_key(str(short))
    with pytest.raises(SettingsError, match="cannot be read"):
        load_key(str(tmp_path / "missing"))


def test_damaged_bank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelsError, match="missing"):
        load_bank(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", w=np.zeros(3))
    with pytest.raises(ModelsError, match="cannot be read"):
        load_bank(tmp_path / "other.npz")


@pytest.mark.parametrize("wearing", [True, False])
def test_who_wears_no_glasses_seldom_gets_a_face_with_glasses(wearing: bool) -> None:
    bank = load_bank()
    read = np.array([bank.read(embedding).glasses for embedding in bank.embeddings[:600]])
    people = np.flatnonzero(
        ((bank.glasses[:600] > 0.5) == wearing) & ((read > 0.6) == wearing) & ~bank.child[:600]
    )
    chosen = [
        bank.index(choose({0: Profile(bank.embeddings[row], bank.skin_lab[row])}, KEY)[0].name)
        for row in people[:24]
    ]
    assert len(chosen) == 24
    share = float((bank.glasses[chosen] > 0.5).mean())
    assert share > 0.35 if wearing else share < 0.1, share


def test_bearded_men_get_bearded_faces_more_often() -> None:
    bank = load_bank()
    men = np.flatnonzero((bank.female < 0.3) & ~bank.child)
    share = {}
    for name, rows in (("full", men[bank.beard[men] > 0.8][:16]), ("bare", men[bank.beard[men] < 0.05][:16])):
        people = [Profile(bank.embeddings[row], bank.skin_lab[row]) for row in rows]
        chosen = [bank.index(choose({0: profile}, KEY)[0].name) for profile in people]
        share[name] = float(bank.beard[chosen].mean())
    assert share["full"] > share["bare"] + 0.08, share
