//! nginx in the agent's place: one worker that puts one header in, over the same TLS upstream.
//!
//! Everything that costs it more than it must is off: access log, request limits, connections that end after a thousand requests. TLS 1.3
//! and verification are on, as in the agent.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};
use tests::fixture;
use tests::process::{Process, descendants_running, eventually};

use crate::rig::Rig;

/// Where systems put it; often not in the PATH of an ordinary user.
const PLACES: [&str; 3] = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"];

/// A running nginx; it ends with the value.
pub struct Nginx {
    /// The master.
    pub process: Process,
    /// The one worker.
    pub worker: u32,
    /// Where it listens.
    pub address: SocketAddr,
}

/// The program, if it is installed.
pub fn installed() -> Option<PathBuf> {
    PLACES
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file())
}

impl Nginx {
    /// Starts it in front of the rig's provider.
    pub fn start(rig: &Rig) -> anyhow::Result<Self> {
        let dir = rig.dir().join("nginx");
        std::fs::create_dir(&dir)?;
        // It cannot choose a port itself: one that was free a moment ago.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        std::fs::write(dir.join("nginx.conf"), config(rig, address))?;
        let mut command = Command::new(installed().context("nginx is not installed")?);
        command.arg("-p").arg(&dir).arg("-c").arg("nginx.conf");
        command.args(["-e", "stderr"]);
        let mut process = Process::start("nginx", command, rig.dir())?;
        let up = eventually("nginx serves", || {
            if !matches!(process.try_exit(), Ok(None)) {
                return Some(None);
            }
            let worker = *descendants_running(process.pid(), "nginx").first()?;
            TcpStream::connect(address).ok().map(|_| Some(worker))
        })?;
        let Some(worker) = up else {
            bail!("nginx ended: {}", process.output().1);
        };
        Ok(Nginx {
            process,
            worker,
            address,
        })
    }
}

fn config(rig: &Rig, address: SocketAddr) -> String {
    let (upstream, ca) = (rig.upstream.address(), rig.dir().join("ca.pem"));
    let key = fixture::key(tests::upstream::Provider::OpenAi);
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {kind};\n"))
        .concat();
    format!(
        "daemon off;
pid nginx.pid;
worker_processes 1;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
{temporary}
    keepalive_requests 1000000000;
    upstream provider {{
        server {upstream};
        keepalive 32;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address};
        location /openai/ {{
            proxy_pass https://provider/;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host {upstream};
            proxy_set_header Authorization \"Bearer {key}\";
            proxy_ssl_protocols TLSv1.3;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate {ca};
            proxy_ssl_name localhost;
            proxy_ssl_server_name on;
        }}
    }}
}}
",
        ca = ca.display()
    )
}
