//! What every response passes on its way to the app: decoded if it came compressed, metered, and searched for the key that was sent with the
//! request.
//!
//! One value per exchange. It holds no key: the guard is shown the leased one, where it lies, for the time of one call. In this order,
//! because a meter reads what the provider wrote, and the guard must see exactly what goes out.

use std::sync::Arc;
use std::time::Duration;

use providers::{Meter, Metered, Shape};

use crate::echo::decode::Decoding;
use crate::echo::{self, Guard};
use crate::http1::{Framing, ResponseHead};
use crate::keys::Lease;

/// How long bytes that may be the beginning of the key are held back before they go on. Less than a screen's frame, so that a stream does
/// not visibly stall.
pub const HOLD: Duration = Duration::from_millis(15);

/// The whole of what is between upstream and app.
pub struct Sieve {
    lease: Arc<Lease>,
    shape: Shape,
    decoding: Option<Decoding>,
    meter: Option<Meter>,
    result: Option<Metered>,
    guard: Guard,
    hits: u32,
    /// Between meter and guard; kept for its allocation.
    metered: Vec<u8>,
}

/// What an exchange used, when all is over.
#[derive(Debug, Default)]
pub struct Settled {
    /// What the provider counted, or what was estimated; none when there was no answer to read.
    pub metered: Option<Metered>,
    /// How often the key stood in the answer.
    pub echo_hits: u32,
}

/// The answer is encoded so that it cannot be searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl Sieve {
    /// A sieve for the answer to a request that used this lease.
    pub fn new(shape: Shape, lease: &Arc<Lease>) -> Self {
        Self {
            lease: Arc::clone(lease),
            shape,
            decoding: None,
            meter: None,
            result: None,
            guard: Guard::new(),
            hits: 0,
            metered: Vec::new(),
        }
    }

    /// Prepares for a response with this head. Whether its body may come out with another length.
    pub fn begin(
        &mut self,
        head: &ResponseHead,
        drops_usage: bool,
    ) -> Result<LengthChanges, Unreadable> {
        let has_body = !matches!(head.framing, Framing::None | Framing::Length(0));
        let mut codings = head.fields.all("content-encoding").filter(|_| has_body);
        self.decoding = match (codings.next(), codings.next()) {
            (None, _) => None,
            (Some(coding), None) => Decoding::new(coding).map_err(|_| Unreadable)?,
            (Some(_), Some(_)) => return Err(Unreadable),
        };
        let content_type = head.fields.first("content-type").unwrap_or_default();
        let content_type = std::str::from_utf8(content_type).unwrap_or_default();
        let mut meter = Meter::new(self.shape, content_type, drops_usage);
        for (name, value) in head.fields.iter() {
            meter.header(name, value);
        }
        self.meter = Some(meter);
        Ok(LengthChanges(self.decoding.is_some() || drops_usage))
    }

    /// Decodes a body, or the beginning of one, without metering or searching it: for errors that are read before anything is decided.
    pub fn peek(head: &ResponseHead, body: &[u8]) -> Result<Vec<u8>, Unreadable> {
        let mut out = Vec::new();
        match head.fields.first("content-encoding") {
            None => out.extend_from_slice(body),
            Some(coding) => match Decoding::new(coding).map_err(|_| Unreadable)? {
                None => out.extend_from_slice(body),
                Some(mut decoding) => decoding
                    .feed(body, |content| out.extend_from_slice(content))
                    .map_err(|_| Unreadable)?,
            },
        }
        Ok(out)
    }

    /// Passes a piece of the body on, as far as it may go.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Unreadable> {
        let Self {
            lease,
            decoding,
            meter,
            metered,
            guard,
            ..
        } = self;
        let key = key(lease);
        let mut pass = |piece: &[u8]| match meter {
            None => guard.feed(key, piece, out),
            Some(meter) if meter.is_transparent() => {
                meter.watch(piece);
                guard.feed(key, piece, out);
            }
            Some(meter) => {
                metered.clear();
                meter.feed(piece, metered);
                guard.feed(key, metered, out);
            }
        };
        match decoding {
            None => pass(piece),
            Some(decoding) => decoding.feed(piece, pass).map_err(|_| Unreadable)?,
        }
        Ok(())
    }

    /// The body is complete: nothing is held back any longer.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Unreadable> {
        if let Some(decoding) = &self.decoding {
            decoding.finish().map_err(|_| Unreadable)?;
        }
        self.metered.clear();
        if let Some(meter) = self.meter.take() {
            self.result = Some(meter.finish(true, &mut self.metered));
        }
        self.guard.feed(key(&self.lease), &self.metered, out);
        self.guard.finish(key(&self.lease), out);
        Ok(())
    }

    /// Whether bytes are held back that may be the beginning of the key.
    pub fn is_holding(&self) -> bool {
        self.guard.holding()
    }

    /// [`HOLD`] is over.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        self.guard.flush(key(&self.lease), out);
    }

    /// Masks the key in a header's value.
    pub fn mask(&mut self, value: &mut [u8]) {
        self.hits += u32::from(echo::mask_whole(key(&self.lease), value));
    }

    /// What was used. Once per exchange.
    pub fn settle(self) -> Settled {
        // A meter that is still there has not seen the end.
        let broken_off = self.meter.map(|meter| meter.finish(false, &mut Vec::new()));
        Settled {
            metered: self.result.or(broken_off),
            echo_hits: self.hits.saturating_add(self.guard.hits()),
        }
    }
}

/// Whether the length that the upstream announced no longer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthChanges(pub bool);

#[expect(
    clippy::disallowed_methods,
    reason = "the echo guard compares what comes back with the key, where it lies"
)]
fn key(lease: &Lease) -> &[u8] {
    lease.secret.expose()
}
