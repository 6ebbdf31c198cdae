//! Verbs on provider keys, one file each.

mod add;
mod change;
mod consent;
mod destroy;
mod policy;
mod rotate;
mod saved;
mod seal;
mod secret_input;
mod show;
mod try_key;
pub(crate) mod verify;

use crate::Answer;
use crate::args::KeyVerb;
use crate::config::Paths;
use crate::output::Output;

/// `tacit key …`
pub(crate) async fn run(verb: KeyVerb, paths: &Paths, output: &Output) -> Answer {
    match verb {
        KeyVerb::Add(options) => add::run(*options, paths, output).await,
        KeyVerb::Destroy(options) => destroy::run(options, paths, output).await,
        KeyVerb::List => show::list(paths, output).await,
        KeyVerb::Revoke(options) => change::revoke(options, paths, output).await,
        KeyVerb::Rollback { id, no_wait } => change::rollback(&id, no_wait, paths, output).await,
        KeyVerb::Rotate(options) => rotate::run(options, paths, output).await,
        KeyVerb::Seal(options) => seal::run(options, paths, output),
        KeyVerb::Set(options) => policy::set(*options, paths, output).await,
        KeyVerb::Show { id } => show::one(&id, paths, output).await,
        KeyVerb::Test(options) => try_key::run(options, paths, output).await,
        KeyVerb::Verify(options) => verify::run(options, paths, output).await,
    }
}
