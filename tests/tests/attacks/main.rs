//! Attacks, one test each, over raw sockets against the built agent, with an upstream that keeps every byte.
//!
//! Written from the point of view of a hostile app or a hostile upstream: each test shows the attack that must fail and its nearest
//! neighbour that must pass, and ends by checking the property that all of them serve: key bytes reach only the bound upstream, once in
//! each request, in one slot, and reach the app never. `property` checks the same over generated requests and answers.

#![allow(clippy::unwrap_used)]

mod binding;
mod certificates;
mod credentials;
mod echo;
mod echo_head;
mod encoded;
mod endless;
mod endpoints;
mod framing;
mod grammar;
mod host;
mod http2;
mod interim;
mod property;
mod redirects;
mod requests;
mod service;
mod slow;
mod syntax;
mod target;
