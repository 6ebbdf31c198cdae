//! How custodians keep the store's key: opened at start from t parts, dealt when there is none, handed to a custodian that
//! came later.
//!
//! Each part rests under a key that one token computes; fewer than t of them open nothing. Parts are bound to what the whole
//! key commits to, and as many custodians as the configuration asks for must agree on that: with fewer, somebody who writes
//! the database and holds a stolen token could have the next rows sealed under a key that he knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use custody::storekey::{Holder, KEY_BYTES, Part, StoreKey, StoreKeyError, WrappedPart};
use custody::{CUSTODIANS_MAX, Fingerprint};
use futures_util::future::join_all;
use secret::Arena;

use crate::custodians::{Custodian, Custodians};
use crate::ledger::LedgerError;
use crate::random::KernelRandom;
use crate::refusal::{Code, Refusal};
use crate::store::Lock;

/// The parts of one key, all that are kept, and those that opened.
struct Opened {
    kept: Vec<WrappedPart>,
    /// Indices into `kept` with the parts.
    parts: Vec<(usize, Part)>,
    /// Custodians that answered with a key under which their part does not open.
    edited: Vec<String>,
    /// Parts whose custodian does not answer.
    absent: usize,
}

/// Opened parts, each beside what it was wrapped as.
type Agreeing<'a> = Vec<(&'a WrappedPart, Part)>;

/// A dealt key and its parts: custodian (hex of its fingerprint) and wrapped part.
pub type Dealt = (StoreKey, Vec<(String, Vec<u8>)>);

/// Opens every key that rows of the store are under, and the newest one.
///
/// # Errors
/// [`LedgerError::Locked`] while too few custodians answer; [`LedgerError::KeyEdited`] when no custodian that comes back
/// would help.
pub async fn open(lock: &Lock, custodians: &Custodians) -> Result<Vec<StoreKey>, LedgerError> {
    let mut by_epoch: BTreeMap<u32, Vec<WrappedPart>> = BTreeMap::new();
    for part in parse(&lock.parts)? {
        by_epoch.entry(part.epoch).or_default().push(part);
    }
    let newest = by_epoch.keys().next_back().copied();
    if let Some(lost) = lock
        .epochs
        .iter()
        .find(|epoch| !by_epoch.contains_key(epoch))
    {
        let text = format!("no part is left of key {lost}, under which rows are sealed");
        return Err(LedgerError::KeyEdited(text));
    }
    let mut keys = Vec::new();
    for (epoch, kept) in by_epoch {
        if lock.epochs.contains(&epoch) || newest == Some(epoch) {
            keys.push(combine(epoch, ask(kept, custodians).await, custodians)?);
        }
    }
    Ok(keys)
}

fn parse(parts: &[Vec<u8>]) -> Result<Vec<WrappedPart>, LedgerError> {
    let parse = |part: &Vec<u8>| {
        WrappedPart::parse(part).map_err(|error| LedgerError::KeyEdited(error.to_string()))
    };
    parts.iter().map(parse).collect()
}

/// Has every custodian that answers open its part.
async fn ask(kept: Vec<WrappedPart>, custodians: &Custodians) -> Opened {
    let one = |part: &WrappedPart| {
        let (found, salt) = (custodians.by_fingerprint(&part.custodian), part.salt);
        let one = found.filter(|one| one.usable()).cloned();
        async move {
            let one = one?;
            match one.client.store_part(&salt).await {
                Ok(key) => Some((one.id.clone(), key)),
                Err(error) => {
                    tracing::warn!(custodian = %one.id, %error, "no key for its part of the store's key");
                    None
                }
            }
        }
    };
    let answers = join_all(kept.iter().map(one)).await;
    let (mut parts, mut edited, mut absent) = (Vec::new(), Vec::new(), 0);
    for (at, answer) in answers.into_iter().enumerate() {
        match answer.map(|(id, key)| (id, kept[at].open(&key))) {
            Some((_, Ok(part))) => parts.push((at, part)),
            Some((id, Err(_))) => edited.push(id),
            None => absent += 1,
        }
    }
    Opened {
        kept,
        parts,
        edited,
        absent,
    }
}

/// The key that enough custodians agree on.
fn combine(epoch: u32, opened: Opened, custodians: &Custodians) -> Result<StoreKey, LedgerError> {
    for id in &opened.edited {
        tracing::warn!(custodian = %id, epoch, "its part of the store's key was changed");
    }
    let Opened { kept, parts, .. } = opened;
    // By threshold and commitment: parts of one key.
    let mut groups: BTreeMap<(u8, [u8; 32]), Agreeing<'_>> = BTreeMap::new();
    for (at, part) in parts {
        let wrapped = &kept[at];
        let group = (wrapped.threshold, wrapped.commitment);
        groups.entry(group).or_default().push((wrapped, part));
    }
    let most = groups.values().map(Vec::len).max().unwrap_or(0);
    let needed = |threshold: u8| usize::from(threshold.max(custodians.quorum()));
    let agreed = groups
        .iter()
        .find(|((threshold, _), group)| group.len() >= needed(*threshold));
    if let Some((_, group)) = agreed {
        let arena = arena()?;
        return StoreKey::combine(group, &arena)
            .map_err(|error| LedgerError::KeyEdited(error.to_string()));
    }
    let dealt = kept.iter().map(|part| part.threshold).max().unwrap_or(0);
    let text = format!(
        "{most} custodians that are up hold fitting parts of key {epoch}, {} are needed",
        needed(dealt)
    );
    if most + opened.absent >= needed(dealt) {
        Err(LedgerError::Locked(text))
    } else {
        Err(LedgerError::KeyEdited(text))
    }
}

/// Locked memory for one key; a page of it.
fn arena() -> Result<Arena, LedgerError> {
    let arena = Arena::new(KEY_BYTES).map_err(|error| LedgerError::Locked(error.to_string()))?;
    tracing::info!(tier = arena.tier().name(), "memory for the store's key");
    Ok(arena)
}

/// Wraps a part for a custodian, under a fresh salt.
async fn wrap(
    key: &StoreKey,
    threshold: u8,
    part: &Part,
    one: &Custodian,
) -> Option<(String, Vec<u8>)> {
    let (custodian, salt) = (one.fingerprint()?, crate::random_challenge());
    let part_key = match one.client.store_part(&salt).await {
        Ok(part_key) => part_key,
        Err(error) => {
            tracing::warn!(custodian = %one.id, %error, "it gets no part of the store's key yet");
            return None;
        }
    };
    let holder = Holder {
        custodian,
        salt,
        part_key: &part_key,
    };
    let wrapped = key.wrap(threshold, part, &holder, &mut KernelRandom);
    Some((hex::encode(custodian.as_bytes()), wrapped.encode()))
}

/// Draws a key and deals it to every custodian that can be asked; those that come later get a part then.
///
/// # Errors
/// [`Code::HsmUnavailable`] when fewer than t took theirs.
pub async fn create(epoch: u32, custodians: &Custodians) -> Result<Dealt, Refusal> {
    let internal = |text: String| Refusal::new(Code::Internal, text);
    let usable = custodians.usable();
    if usable.len() < usize::from(custodians.quorum()) {
        return Err(custodians.shortage());
    }
    let arena = arena().map_err(|error| internal(error.to_string()))?;
    let made = StoreKey::generate(epoch, &arena, &mut KernelRandom).and_then(|key| {
        let parts = key.deal(custodians.quorum(), usable.len(), &mut KernelRandom)?;
        Ok((key, parts))
    });
    let (key, parts) = made.map_err(|error| internal(error.to_string()))?;
    let each = parts
        .iter()
        .zip(&usable)
        .map(|(part, one)| wrap(&key, custodians.quorum(), part, one));
    let wrapped: Vec<_> = join_all(each).await.into_iter().flatten().collect();
    if wrapped.len() < usize::from(custodians.quorum()) {
        return Err(custodians.shortage());
    }
    Ok((key, wrapped))
}

/// Parts for custodians that can be asked and hold none of the newest key: made from the parts of t others.
///
/// # Errors
/// What kept the parts from being opened.
pub async fn cover(
    lock: &Lock,
    custodians: &Custodians,
) -> Result<Option<(u32, Vec<(String, Vec<u8>)>)>, LedgerError> {
    let all = parse(&lock.parts)?;
    let Some(epoch) = all.iter().map(|part| part.epoch).max() else {
        return Ok(None);
    };
    let kept: Vec<WrappedPart> = all.into_iter().filter(|part| part.epoch == epoch).collect();
    let holds = |fingerprint: &Fingerprint| kept.iter().any(|part| part.custodian == *fingerprint);
    let without: Vec<Arc<Custodian>> = custodians
        .usable()
        .into_iter()
        .filter(|one| one.fingerprint().is_some_and(|print| !holds(&print)))
        .collect();
    if without.is_empty() {
        return Ok(None);
    }
    let opened = ask(kept, custodians).await;
    let key = combine(
        epoch,
        ask(opened.kept.clone(), custodians).await,
        custodians,
    )?;
    let commitment = key.commitment();
    let (kept, mut parts) = (opened.kept, opened.parts);
    parts.retain(|(at, _)| kept[*at].commitment == commitment);
    let threshold = parts.first().map_or(0, |(at, _)| kept[*at].threshold);
    let parts: Vec<Part> = parts.into_iter().map(|(_, part)| part).collect();
    let free = (1..=CUSTODIANS_MAX).filter(|x| kept.iter().all(|part| part.x != *x));
    let mut made = Vec::new();
    for (one, x) in without.iter().zip(free) {
        let part = StoreKey::another_part(threshold, &parts, x)
            .map_err(|error: StoreKeyError| LedgerError::KeyEdited(error.to_string()))?;
        made.extend(wrap(&key, threshold, &part, one).await);
    }
    Ok((!made.is_empty()).then_some((epoch, made)))
}
