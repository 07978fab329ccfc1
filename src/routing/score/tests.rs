#![expect(clippy::arithmetic_side_effects, reason = "tests may overflow and panic")]

use proptest::prelude::*;

use super::*;

#[test]
fn a_hash_depends_on_every_byte_and_on_where_it_stands() {
    let texts: [&[u8]; 8] = [b"", b"\0", b"a", b"a\0", b"\0a", b"abcdefgh", b"abcdefgh\0", b"abcdefga"];
    let hashes: std::collections::BTreeSet<u64> = texts.iter().map(|text| hash(0, text)).collect();
    assert_eq!(hashes.len(), texts.len());
    assert_ne!(hash(0, b"a"), hash(1, b"a"));
    assert_ne!(hash(hash(0, b"a"), b"b"), hash(hash(0, b"b"), b"a"));
}

#[test]
fn lots_are_never_nothing_and_heavier_ones_are_smaller() {
    for random in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        let drawn = lot(random, 1);
        assert!(drawn.is_finite() && drawn > 0.0, "{random}: {drawn}");
        assert!(lot(random, 10) < drawn);
    }
    assert!(lot(5, 0).is_finite());
}

#[test]
fn scores_can_be_told() {
    let told = [
        Score::Place(1),
        Score::Owed(-5),
        Score::Lot(7),
        Score::Pin(7),
        Score::Open { open: 2, weight: 1_000 },
        Score::Latency(12),
        Score::Cost(Some(5)),
        Score::Cost(None),
        Score::Back(Some(9)),
        Score::Back(None),
    ]
    .map(|score| score.to_string());
    assert_eq!(told.iter().collect::<std::collections::BTreeSet<_>>().len(), told.len());
    assert_eq!(told[4], "2 open for a weight of 1000");
}

proptest! {
    #[test]
    fn flipping_a_bit_changes_half_of_the_hash(bytes in prop::collection::vec(any::<u8>(), 1..64), at in any::<usize>()) {
        let mut other = bytes.clone();
        let at = at % (bytes.len() * 8);
        other[at / 8] ^= 1 << (at % 8);
        let changed = (hash(9, &bytes) ^ hash(9, &other)).count_ones();
        prop_assert!((8..=56).contains(&changed), "{changed}");
    }
}
