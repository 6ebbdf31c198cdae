//! How many custodians a lease needs, as a table over every set of them that fails: tokens in software behind the real protocol.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use custody::p256::KeyPair;
use custody::trust::PinnedCustodian;
use custody::{FileSealer, SealRequest, SealedKey, SystemRandom, Trust, seal};
use hsm::client::Ingest;
use hsm::fake::Fake;
use hsm::kernel::{Journal, Kernel, Settings};
use hsm::process::{Watchdog, serve_listener};
use hsm::{TokenClient, TokenConfig};
use hsmd::custodians::{Custodians, SessionSeed, StoredShare};
use secret::Secret;

/// Far longer than anything here takes: a watchdog that bites ends the process that it watches, which is this one.
const PATIENCE: Duration = Duration::from_secs(120);

/// A token in software that is served on a socket, as a token process of its own would be.
fn token(dir: &Path, id: char) -> TokenClient {
    let socket = dir.join(format!("{id}.sock"));
    let listener = hsm::listen::bind(&socket).unwrap();
    let settings = Settings {
        custodian: id.to_string().parse().unwrap(),
        profile: Some("ecdh-kw".to_owned()),
        fips: false,
    };
    std::thread::spawn(move || {
        let fake = Fake::new(&format!("serial-{id}"));
        let mut kernel = Kernel::new(fake, settings, Journal::forgetful());
        let watchdog = Watchdog::start(PATIENCE).unwrap();
        let own = nix::unistd::geteuid().as_raw();
        serve_listener(&listener, &[own], &mut kernel, &watchdog)
    });
    let mut config = TokenConfig::new(id, "/none.so", dir.join("none"), dir.join("state"));
    config.token_socket = Some(socket);
    TokenClient::start(config)
}

/// Custodians with one key's shares, and an agent's session.
struct World {
    custodians: Custodians,
    shares: Vec<StoredShare>,
    seed: SessionSeed,
}

/// The share goes in, and comes out as the store keeps it.
async fn ingested(client: &TokenClient, sealed: &SealedKey, x: usize) -> StoredShare {
    let manifest = custody::Manifest::parse(&sealed.manifest).unwrap();
    let request = Ingest {
        header: &sealed.header,
        compartment: "openai",
        sealed: &sealed.shares[x],
        check: &manifest.entries[x].check,
    };
    let row = client.ingest(request).await.unwrap();
    StoredShare {
        x: u8::try_from(x + 1).unwrap(),
        custodian: client.id().to_owned(),
        identity: row.identity,
        wrapped: row.wrapped,
        mac: row.mac,
    }
}

fn sealed(trust: &Trust, sealer: &FileSealer) -> SealedKey {
    let request = SealRequest {
        key_id: "openai-prod".parse().unwrap(),
        version: 1,
        generation: 1,
        provider: "openai".to_owned(),
        upstreams: vec!["https://api.openai.com".parse().unwrap()],
        threshold: trust.threshold,
        custodians: trust.descriptors(),
        created_at: 1,
        challenges: 0,
    };
    let key = Secret::<[u8]>::new(b"sk-fake-not-a-key".as_slice().into());
    seal(&request, &key, sealer, &mut SystemRandom::new())
        .unwrap()
        .0
}

async fn world(dir: &Path, t: u8, n: usize, part: bool) -> World {
    let clients: Vec<TokenClient> = ('a'..).take(n).map(|id| token(dir, id)).collect();
    let mut custodians = Vec::new();
    for client in &clients {
        let encoded = client.init().await.unwrap();
        custodians.push(PinnedCustodian {
            current: custody::SignedDescriptor::parse(&encoded).unwrap(),
            superseded: Vec::new(),
        });
    }
    let random = &mut SystemRandom::new();
    let sealer = FileSealer::from_seed(&FileSealer::generate_seed(random)).unwrap();
    let trust = Trust {
        threshold: t,
        custodians,
        sealers: Vec::new(),
    };
    let sealed = sealed(&trust, &sealer);
    let mut shares = Vec::new();
    for (x, client) in clients.iter().enumerate() {
        shares.push(ingested(client, &sealed, x).await);
    }
    let custodians = if part {
        Custodians::part(clients, t)
    } else {
        Custodians::new(clients, t)
    };
    for one in custodians.all() {
        let mut health = one.client.health();
        health.wait_for(hsm::Health::is_up).await.unwrap();
        one.examine(&trust).await.unwrap();
    }
    let seed = SessionSeed {
        id: [7; 16],
        p256: KeyPair::generate(random).public().as_bytes().to_vec(),
        rsa: None,
        evidence: hsm::client::Evidence::default(),
    };
    custodians.open_session(&seed).await.unwrap();
    World {
        custodians,
        shares,
        seed,
    }
}

impl World {
    /// How many shares come when the custodians of this set fail; none when the lease is refused.
    async fn deliver(&self, failing: u32) -> Option<usize> {
        let mut shares = self.shares.clone();
        for share in &mut shares {
            // The token refuses a row that is not its own.
            if failing >> (share.x - 1) & 1 == 1 {
                share.mac[0] ^= 1;
            }
        }
        let needed = usize::from(self.custodians.threshold);
        let delivered = self.custodians.deliver(&self.seed, &shares, needed).await;
        let delivered = delivered.ok()?;
        let mut indices: Vec<u8> = delivered.iter().map(|share| share.x).collect();
        indices.sort_unstable();
        indices.dedup();
        assert_eq!(indices.len(), delivered.len(), "no share comes twice");
        Some(delivered.len())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_rows_with_t_healthy_custodians_serve_and_of_a_part_those_with_one() {
    for part in [false, true] {
        for n in 2..=5usize {
            for t in 2..=u8::try_from(n).unwrap() {
                let dir = tempfile::tempdir().unwrap();
                let world = world(dir.path(), t, n, part).await;
                for failing in 0..1u32 << n {
                    let healthy = n - usize::try_from(failing.count_ones()).unwrap();
                    let t = usize::from(t);
                    let wanted = match part {
                        false => (healthy >= t).then_some(t),
                        true => (healthy >= 1).then_some(healthy.min(t)),
                    };
                    let row = format!("{t} of {n}, part {part}, failing {failing:b}");
                    assert_eq!(world.deliver(failing).await, wanted, "{row}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_part_says_rests_on_all_of_its_custodians_below_t_and_on_t_above() {
    for (t, n, quorum) in [(2, 1, 1), (3, 2, 2), (2, 2, 2), (2, 3, 2)] {
        let dir = tempfile::tempdir().unwrap();
        let clients = ('a'..).take(n).map(|id| token(dir.path(), id)).collect();
        let custodians = Custodians::part(clients, t);
        assert_eq!(custodians.quorum(), quorum, "{t}, {n} here");
    }
    // The nearest neighbour: a daemon that is to drive all of them needs t, whatever is there.
    let dir = tempfile::tempdir().unwrap();
    let clients = vec![token(dir.path(), 'a')];
    assert_eq!(Custodians::new(clients, 2).quorum(), 2);
}
