//! The last step before the wire: every credential slot of the app's request is left out, and exactly one is filled with the leased key.
//!
//! The upstream head is written into one buffer that has room for all of it, so that it never regrows and leaves a copy behind, and wiped right
//! after it went to the TLS layer. This room must never write a head without a key, and never one with two.

use std::borrow::Cow;

use providers::{Api, Shape, Slot};
use secret::check_header_safe;
use zeroize::Zeroizing;

use crate::http1::{Framing, RequestHead, fields};
use crate::keys::Lease;
use crate::policy::Grant;
use crate::respond::{Code, Refusal};
use crate::route::Route;
use crate::ws::Offer;

/// More than all that stands in a head besides what its parts take: method, version, our own fields, the name of the key's.
const FIXED_BYTES: usize = 256;

/// What is to be sent upstream, without its credential. Needs a grant: nothing goes out that was not decided upon.
#[derive(Debug)]
pub struct Outgoing<'a> {
    head: &'a RequestHead,
    route: &'a Route,
    grant: &'a Grant,
    query: Cow<'a, str>,
    framing: Framing,
    offer: Option<&'a Offer<'a>>,
}

impl<'a> Outgoing<'a> {
    /// A granted request whose body is framed so.
    pub fn new(
        head: &'a RequestHead,
        route: &'a Route,
        grant: &'a Grant,
        framing: Framing,
    ) -> Self {
        Self {
            head,
            route,
            query: grant.query(&head.query),
            grant,
            framing,
            offer: None,
        }
    }

    /// The same, as a WebSocket handshake.
    pub fn offering<'b>(self, offer: &'b Offer<'b>) -> Outgoing<'b>
    where
        'a: 'b,
    {
        Outgoing {
            offer: Some(offer),
            ..self
        }
    }

    /// The app's request.
    pub fn head(&self) -> &RequestHead {
        self.head
    }

    /// The route it came in by, or that took over.
    pub fn route(&self) -> &Route {
        self.route
    }

    /// The API behind that route.
    pub fn api(&self) -> Api {
        self.route.api
    }

    /// How the answer reports usage.
    pub fn shape(&self) -> Shape {
        self.grant.shape()
    }

    /// The provider is asked for a usage report that the app did not ask for and must not see.
    pub fn drops_usage(&self) -> bool {
        self.grant.drops_usage()
    }

    /// The complete head with the key in its slot. Called by the bound upstream alone, with its own authority.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where a key goes into a request"
    )]
    pub(crate) fn serialise(
        &self,
        authority: &str,
        lease: &Lease,
    ) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let key = lease.secret.expose();
        // Checked at sealing and at opening too; a key that could split the head must not be sent, and neither may the bare request.
        check_header_safe(key).map_err(|_| {
            Refusal::new(
                Code::UpstreamUnreachable,
                "the leased key cannot stand in a header; seal it again",
            )
        })?;
        let room = self.room(authority, key);
        let mut buffer = Zeroizing::new(Vec::with_capacity(room));
        self.render(authority, key, &mut |part| {
            assert!(
                part.len() <= buffer.capacity() - buffer.len(),
                "a head needs no more than it was given room for"
            );
            buffer.extend_from_slice(part);
        });
        Ok(buffer)
    }

    /// What the head takes at most.
    fn room(&self, authority: &str, key: &[u8]) -> usize {
        let fields = self.head.fields.iter();
        let fields: usize = fields
            .map(|(name, value)| name.len() + value.len() + 4)
            .sum();
        let pinned = self.grant.headers();
        let pinned: usize = pinned
            .map(|(name, value)| name.len() + value.len() + 4)
            .sum();
        let path = self.grant.path().len() + self.query.len();
        FIXED_BYTES + path + authority.len() + fields + pinned + key.len()
    }

    fn render(&self, authority: &str, key: &[u8], write: &mut dyn FnMut(&[u8])) {
        let head = self.head;
        let path = self.grant.path();
        let mut line = |parts: &[&[u8]]| parts.iter().for_each(|part| write(part));
        line(&[head.method.as_bytes(), b" ", path.as_bytes()]);
        if !self.query.is_empty() {
            line(&[b"?", self.query.as_bytes()]);
        }
        line(&[b" HTTP/1.1\r\nhost: ", authority.as_bytes(), b"\r\n"]);
        for (name, value) in self.forwarded() {
            line(&[name.as_bytes(), b": ", value, b"\r\n"]);
        }
        for (name, value) in self.grant.headers() {
            line(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
        for (name, value) in self.route.api.adds_headers() {
            if head.fields.first(name).is_none() {
                line(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
            }
        }
        // Answers must be readable here: metered, and searched for the key.
        line(&[b"accept-encoding: identity\r\n"]);
        match self.framing {
            Framing::Length(length) => {
                line(&[b"content-length: ", length.to_string().as_bytes(), b"\r\n"])
            }
            Framing::Chunked => line(&[b"transfer-encoding: chunked\r\n"]),
            // Servers want to see that a POST has no body.
            Framing::None if matches!(head.method, "POST" | "PUT" | "PATCH") => {
                line(&[b"content-length: 0\r\n"])
            }
            Framing::None | Framing::UntilClose => {}
        }
        for (name, value) in self.offer.into_iter().flat_map(Offer::fields) {
            line(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
        let Slot { header, prefix } = self.route.api.slot(path);
        line(&[
            header.as_bytes(),
            b": ",
            prefix.as_bytes(),
            key,
            b"\r\n\r\n",
        ]);
    }

    /// The app's fields that go on: none of the hop, none that could be a credential, none that could be taken for another's twin.
    fn forwarded(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.head.fields.iter().filter(|(name, _)| {
            !fields::is_hop_by_hop(name)
                && !providers::is_credential_header(name)
                && !self.route.api.drops_header(name)
                && !self.grant.drops(name)
                && !name.eq_ignore_ascii_case("accept-encoding")
                // `x_api_key` becomes `x-api-key` behind a CGI-like server.
                && !name.contains('_')
                && !name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("x-tacit-"))
                && !self.head.nominates(name)
        })
    }
}
