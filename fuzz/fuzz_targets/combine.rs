//! The combiner under arbitrary records: never a panic, and a data key for exactly t untouched records of distinct
//! custodians that the header names, never otherwise.
#![no_main]

use custody::combine::combine;
use custody::dek::Dek;
use custody::gf256::multiply;
use custody::{Fingerprint, Header, Manifest, ManifestEntry, SealerKey, ShareRecord, Suite};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rand_core::Rng;
use secret::Secret;

#[path = "support/random.rs"]
mod random;

/// What is done to a list of t good records.
#[derive(Arbitrary, Debug)]
enum Edit {
    Flip { which: u8, at: u8, bits: u8 },
    Rename { which: u8, x: u8 },
    Exchange { which: u8, of: u8, x: u8 },
    Remove { which: u8 },
    Add { of: u8, x: u8 },
    AddMade { x: u8, bytes: [u8; 64] },
}

#[derive(Arbitrary, Debug)]
struct Input {
    n: u8,
    t: u8,
    seed: u64,
    /// The first custodian of t in a row, round the end.
    first: u8,
    edits: Vec<Edit>,
    /// A bit flipped in one signed check value.
    spoiled: Option<(u8, u8)>,
}

fn evaluate(coefficients: &[[u8; 32]], x: u8) -> [u8; 32] {
    let mut y = [0; 32];
    for coefficient in coefficients {
        for (byte, add) in y.iter_mut().zip(coefficient) {
            *byte = multiply(*byte, x) ^ add;
        }
    }
    y
}

fuzz_target!(|input: Input| {
    let n = 2 + input.n % 15;
    let t = 2 + input.t % (n - 1);
    let mut random = random::Stream::new(input.seed);
    let mut coefficients = vec![[0u8; 32]; t.into()];
    for coefficient in &mut coefficients {
        random.fill_bytes(coefficient);
    }
    // `Dek::generate` draws 32 bytes from this stream: the same as the constant coefficient drawn from it here.
    random::Stream::new(!input.seed).fill_bytes(&mut coefficients[usize::from(t) - 1]);
    let dek = Dek::generate(&mut random::Stream::new(!input.seed));
    let header = Header {
        suite: Suite::Aes256GcmSiv,
        key_id: "fuzz".parse().expect("a name"),
        version: 1,
        generation: 1,
        provider: "openai".to_owned(),
        upstreams: vec!["https://api.openai.com".parse().expect("an origin")],
        threshold: t,
        custodians: (1..=n).map(|x| Fingerprint::new([x; 32])).collect(),
        sealer: SealerKey::new([1; 32]),
        created_at: input.seed,
        commitment: dek.commitment(),
    };
    let hash = header.hash();
    let record = |x| ShareRecord::new(x, &Secret::new(Box::new(evaluate(&coefficients, x))), &hash);
    let entry = |x| ManifestEntry {
        check: record(x).check_value(&hash),
        sealed_hash: [0; 32],
    };
    let mut manifest = Manifest {
        header_hash: hash,
        envelope_hash: [0; 32],
        entries: (1..=n).map(entry).collect(),
    };
    let mut spoiled = None;
    if let Some((x, bit)) = input.spoiled {
        let at = usize::from(x % n);
        manifest.entries[at].check[usize::from(bit / 8)] ^= 1 << (bit % 8);
        spoiled = Some(x % n + 1);
    }

    let bytes_of = |x: u8| -> [u8; 64] {
        let y = evaluate(&coefficients, x);
        [&b"TS\x01"[..], &[x], &y, &hash[..28]]
            .concat()
            .try_into()
            .expect("64 bytes")
    };
    let mut given: Vec<(u8, [u8; 64])> = (0..t)
        .map(|at| input.first.wrapping_add(at) % n + 1)
        .map(|x| (x, bytes_of(x)))
        .collect();
    for edit in input.edits.iter().take(8) {
        let place = |which: &u8| usize::from(*which) % given.len().max(1);
        match edit {
            Edit::Add { of, x } => given.push((*x, bytes_of(of % n + 1))),
            Edit::AddMade { x, bytes } => given.push((*x, *bytes)),
            _ if given.is_empty() => {}
            Edit::Flip { which, at, bits } => {
                let which = place(which);
                given[which].1[usize::from(at % 64)] ^= bits;
            }
            Edit::Rename { which, x } => {
                let which = place(which);
                given[which].0 = *x;
            }
            Edit::Exchange { which, of, x } => {
                let which = place(which);
                given[which] = (x % n + 1, bytes_of(of % n + 1));
            }
            Edit::Remove { which } => drop(given.remove(place(which))),
        }
    }
    let mut valid = given.len() == usize::from(t);
    let mut records = Vec::new();
    for (at, (x, bytes)) in given.iter().enumerate() {
        let repeated = given[..at].iter().any(|(other, _)| other == x);
        valid &= (1..=n).contains(x) && *bytes == bytes_of(*x) && !repeated && spoiled != Some(*x);
        records.push((*x, ShareRecord::from_secret(Secret::new(Box::new(*bytes)))));
    }
    let outcome = combine(&header, &hash, &manifest, &records);
    assert_eq!(outcome.is_ok(), valid, "{:?}", outcome.err());
    if let Ok(found) = outcome {
        assert!(found.matches(&dek.commitment()));
    }
});
