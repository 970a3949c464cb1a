//! The proxies: which file of `config/examples` each is started with, and how.

use std::path::{Path, PathBuf};
use std::process::Command;

use keybearer::cli::examples::{Example, Values, replace};

use crate::program::{Program, Start, free_port};

/// A proxy, and how it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    NginxBySocket,
    Caddy,
    CaddyBySocket,
    /// The Caddyfile of the compose example.
    Compose,
    Haproxy,
    HaproxyBySocket,
    Envoy,
    EnvoyBySocket,
    EnvoyGrpc,
    Traefik,
}

impl Kind {
    pub fn program(self) -> &'static str {
        match self {
            Self::Nginx | Self::NginxBySocket => "nginx",
            Self::Caddy | Self::CaddyBySocket | Self::Compose => "caddy",
            Self::Haproxy | Self::HaproxyBySocket => "haproxy",
            Self::Envoy | Self::EnvoyBySocket | Self::EnvoyGrpc => "envoy",
            Self::Traefik => "traefik",
        }
    }

    /// Whether it asks over the Unix socket.
    pub fn by_socket(self) -> bool {
        matches!(
            self,
            Self::NginxBySocket | Self::CaddyBySocket | Self::Compose | Self::HaproxyBySocket | Self::EnvoyBySocket
        )
    }

    /// Whether clients hear with an answer of the API what plans leave, and that their key is an old one; what plans leave they
    /// always hear with a refusal.
    pub fn tells_what_is_left(self) -> bool {
        self != Self::Traefik
    }

    /// Whether the older fields replace the API's own; elsewhere they stand beside them.
    pub fn replaces_older_fields(self) -> bool {
        matches!(self, Self::Haproxy | Self::HaproxyBySocket | Self::EnvoyGrpc)
    }

    /// Writes its files into `folder`, filled in with `values`, and says how it is started there.
    fn install(self, program: &Path, values: &Values, folder: &Path) -> Command {
        let fill = |example: Example| example.fill(values).unwrap_or_else(|missing| panic!("{example:?}: {missing}"));
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a file");
        let mut command = Command::new(program);
        command.current_dir(folder).env("HOME", folder);
        match self {
            Self::Nginx | Self::NginxBySocket => {
                let site = fill(Example::Nginx);
                write("site.conf", &if self.by_socket() { over_the_socket(&site) } else { site });
                // What /etc/nginx/nginx.conf says elsewhere: where sites are read from, and folders that are writable. A
                // worker of root's is let into the test's folder, as one in the socket's group would be into that.
                let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|what| format!("{what}_temp_path {};\n", folder.join(what).display()))
                    .concat();
                let site = folder.join("site.conf");
                let main = format!(
                    "user root;\ndaemon off;\nworker_processes 1;\npid {}/pid;\nerror_log stderr notice;\nevents {{}}\n\
                     http {{\naccess_log off;\n{folders}include {};\n}}\n",
                    folder.display(),
                    site.display()
                );
                write("nginx.conf", &main);
                command.arg("-e").arg("stderr").arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
            }
            Self::Caddy | Self::CaddyBySocket | Self::Compose => {
                let text = match self {
                    Self::Compose => compose(values),
                    Self::Caddy => fill(Example::Caddy),
                    _ => over_the_socket(&fill(Example::Caddy)),
                };
                write("Caddyfile", &text);
                command.env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
                command.args(["run", "--config", "Caddyfile", "--adapter", "caddyfile"]);
            }
            Self::Haproxy | Self::HaproxyBySocket => {
                std::fs::write(&values.script, fill(Example::HaproxyLua)).expect("the script");
                let text = fill(Example::Haproxy);
                write("haproxy.cfg", &if self.by_socket() { over_the_socket(&text) } else { text });
                command.args(["-db", "-f", "haproxy.cfg"]);
            }
            Self::Envoy => {
                write("envoy.yaml", &fill(Example::Envoy));
                command.args(ENVOY);
            }
            Self::EnvoyBySocket => {
                let text = over_the_socket(&fill(Example::Envoy));
                // As the file says: without the transport_socket of the cluster.
                let (before, after) = text.split_once("      # The certificate is checked").expect("the cluster's TLS");
                let (_, after) = after.split_once("      load_assignment").expect("the cluster's address");
                write("envoy.yaml", &format!("{before}      load_assignment{after}"));
                command.args(ENVOY);
            }
            Self::EnvoyGrpc => {
                write("envoy.yaml", &fill(Example::EnvoyGrpc));
                command.args(ENVOY);
            }
            Self::Traefik => {
                std::fs::write(&values.dynamic, fill(Example::TraefikDynamic)).expect("the dynamic configuration");
                write("traefik.yaml", &fill(Example::Traefik));
                command.arg("--configfile=traefik.yaml");
            }
        }
        command
    }
}

/// More than one Envoy on a machine must not share the memory that one hands over to the next.
const ENVOY: [&str; 5] = ["-c", "envoy.yaml", "--use-dynamic-base-id", "-l", "warning"];

/// The Caddyfile of the compose example, with containers' names and paths replaced.
fn compose(values: &Values) -> String {
    let pairs = [
        ("/run/keybearer/authz.sock", values.unix_socket.display().to_string()),
        ("api:9000", values.api.to_string()),
        ("9443", values.port.to_string()),
        ("/run/secrets/proxy.crt", values.certificate.display().to_string()),
        ("/run/secrets/proxy.key", values.private_key.display().to_string()),
    ]
    .map(|(from, to)| (from.to_owned(), to));
    replace(include_str!("../../config/examples/compose/Caddyfile"), &pairs).expect("every literal is there")
}

/// A file with its lines for the Unix socket in place of those above them.
fn over_the_socket(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut replaced = 0;
    for line in text.lines() {
        match line.trim_start().strip_prefix("#unix#") {
            Some(instead) => {
                let above = lines.pop().expect("a line above");
                let indent = &above[..above.len() - above.trim_start().len()];
                lines.push(format!("{indent}{}", instead.trim_start()));
                replaced += 1;
            }
            None => lines.push(line.to_owned()),
        }
    }
    assert!(replaced > 0, "there are no lines for the Unix socket");
    lines.join("\n") + "\n"
}

/// A running proxy.
pub struct Proxy {
    pub port: u16,
    /// Its certificate, PEM.
    pub certificate: Vec<u8>,
    _program: Program,
    _folder: tempfile::TempDir,
}

impl Proxy {
    /// Starts it. `values` say where Keybearer and the API are; the rest is this run's own.
    pub async fn start(kind: Kind, program: &Path, values: &Values) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| -> PathBuf { folder.path().join(name) };
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let certificate = made.cert.pem().into_bytes();
        std::fs::write(file("proxy.crt"), &certificate).expect("a file");
        std::fs::write(file("proxy.key"), made.signing_key.serialize_pem()).expect("a file");
        for _ in 0..5 {
            let port = free_port();
            let values = Values {
                port,
                certificate: file("proxy.crt"),
                private_key: file("proxy.key"),
                script: file("keybearer.lua"),
                dynamic: file("dynamic.yaml"),
                ..values.clone()
            };
            let command = kind.install(program, &values, folder.path());
            match Program::start(command, &file("log"), port).await {
                Ok(program) => return Self { port, certificate, _program: program, _folder: folder },
                Err(Start::PortTaken) => {}
                Err(Start::Ended(log)) => panic!("{kind:?} ended:\n{log}"),
            }
        }
        panic!("five free ports were taken by others");
    }
}
