//! `tacit custodian`: the HSM tokens as the daemon sees them, lifting a PIN latch, and a new key for the store they keep.

use proto::v1::{
    CustodianStatus, ListCustodiansRequest, RekeyStoreRequest, UnlatchCustodianRequest,
};
use serde_json::{Value, json};

use crate::Answer;
use crate::args::CustodianVerb;
use crate::client::{self, unary};
use crate::config::Paths;
use crate::output::{Output, clean, fields, table};

/// `tacit custodian …`
pub(crate) async fn run(verb: CustodianVerb, paths: &Paths, output: &Output) -> Answer {
    let mut daemon = client::connect(&paths.socket).await?;
    match verb {
        CustodianVerb::List => {
            let response = unary(daemon.admin.list_custodians(ListCustodiansRequest {})).await?;
            let all: Vec<_> = response.custodians.iter().map(to_json).collect();
            output.result(&render(&response.custodians), &json!({"custodians": all}));
            Ok(true)
        }
        CustodianVerb::Show { id } => {
            let response = unary(daemon.admin.list_custodians(ListCustodiansRequest {})).await?;
            let one = response.custodians.iter().find(|one| one.id == id);
            let one = one.ok_or_else(|| {
                let known: Vec<_> = response
                    .custodians
                    .iter()
                    .map(|one| one.id.as_str())
                    .collect();
                anyhow::anyhow!(
                    "there is no custodian {id}; there are: {}",
                    clean(&known.join(", "))
                )
            })?;
            output.result(&render_one(one), &to_json(one));
            Ok(true)
        }
        CustodianVerb::RekeyStore => {
            let done = unary(daemon.admin.rekey_store(RekeyStoreRequest {})).await?;
            let what = if done.resumed {
                "a rotation that was begun is finished"
            } else {
                "the store has a new key"
            };
            let mut text = format!(
                "{what}: key {} is in force, {} rows re-sealed, revision {}",
                done.epoch, done.rows, done.revision
            );
            if !done.missing_custodians.is_empty() {
                let missing = clean(&done.missing_custodians.join(", "));
                text += &format!("\nnot answering: {missing}; each gets its part when it is back");
            }
            let told = json!({
                "epoch": done.epoch, "rows": done.rows, "revision": done.revision,
                "resumed": done.resumed, "missing_custodians": done.missing_custodians,
            });
            output.result(&text, &told);
            Ok(true)
        }
        CustodianVerb::Unlatch { id } => {
            let request = UnlatchCustodianRequest { id };
            let response = unary(daemon.admin.unlatch_custodian(request)).await?;
            let one = response.custodian.unwrap_or_default();
            let text = format!("one login attempt allowed\n{}", render_one(&one));
            output.result(&text, &to_json(&one));
            Ok(true)
        }
    }
}

/// The table that `status` shows too.
pub(crate) fn render(all: &[CustodianStatus]) -> String {
    let heads = [
        "CUSTODIAN",
        "STATE",
        "TOKEN",
        "PROFILE",
        "RESTARTS",
        "CALLS",
        "ERRORS",
        "DETAIL",
    ];
    let row = |one: &CustodianStatus| {
        vec![
            one.id.clone(),
            state(one),
            format!("{} {}", one.label, one.serial),
            one.profile.clone(),
            one.restarts.to_string(),
            one.calls.to_string(),
            one.errors.to_string(),
            one.detail.clone(),
        ]
    };
    table(&heads, &all.iter().map(row).collect::<Vec<_>>())
}

fn state(one: &CustodianStatus) -> String {
    if one.mismatch {
        format!("{}, NOT AS PINNED", one.state)
    } else {
        one.state.clone()
    }
}

fn render_one(one: &CustodianStatus) -> String {
    let fingerprint: Option<[u8; 32]> = one.fingerprint.as_slice().try_into().ok();
    let fingerprint = fingerprint.map(custody::Fingerprint::new);
    fields(&[
        ("custodian", one.id.clone()),
        ("state", state(one)),
        ("detail", one.detail.clone()),
        ("token serial", one.serial.clone()),
        ("token label", one.label.clone()),
        ("profile", one.profile.clone()),
        (
            "fingerprint",
            fingerprint.map(|one| one.to_string()).unwrap_or_default(),
        ),
        ("restarts", one.restarts.to_string()),
        ("calls", one.calls.to_string()),
        ("errors", one.errors.to_string()),
        (
            "process",
            match one.pid {
                0 => "a service of its own".to_owned(),
                pid => pid.to_string(),
            },
        ),
    ])
}

/// A custodian for scripts; the descriptor itself is `trust show`'s.
pub(crate) fn to_json(one: &CustodianStatus) -> Value {
    json!({
        "id": one.id, "state": one.state, "detail": one.detail, "serial": one.serial,
        "label": one.label, "profile": one.profile, "fingerprint": hex::encode(&one.fingerprint),
        "restarts": one.restarts, "calls": one.calls, "errors": one.errors, "pid": one.pid,
        "mismatch": one.mismatch,
    })
}
