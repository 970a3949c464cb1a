//! Servers that let requests through with a good token: started with a file of this folder that is filled in, and asked.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::program::{Program, Start, free_port};

/// A running server.
pub struct Server {
    port: u16,
    /// Where it tells of itself, if it does.
    admin: u16,
    client: reqwest::Client,
    // Ends before its folder goes.
    _program: Program,
    _folder: TempDir,
}

/// A folder that a server may read as another user than this one.
pub fn folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let readable = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().permissions(readable).tempdir().expect("a folder")
}

impl Server {
    /// Starts `command` in `folder` with `template` as its file `name`, in which `values` and ports stand for their names.
    pub async fn start(
        folder: TempDir,
        (name, template): (&str, &str),
        values: &[(&str, String)],
        command: impl Fn(&Path) -> Command,
    ) -> Self {
        let file: PathBuf = folder.path().join(name);
        for _ in 0..5 {
            let (port, admin) = (free_port(), free_port());
            let mut text = template.replace("@PORT@", &port.to_string()).replace("@ADMIN@", &admin.to_string());
            for (name, value) in values {
                assert!(text.contains(name), "{name} is nowhere in it");
                text = text.replace(name, value);
            }
            std::fs::write(&file, &text).expect("a file");
            match Program::start(command(&file), &folder.path().join("log"), port).await {
                Ok(program) => {
                    // No connection is used twice: the other side may be about to close it.
                    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build();
                    let client = client.expect("a client");
                    return Self { port, admin, client, _program: program, _folder: folder };
                }
                Err(Start::PortTaken) => {}
                Err(Start::Ended(log)) => panic!("{name}: it ended:\n{log}"),
            }
        }
        panic!("five free ports were taken by others");
    }

    /// What it tells of itself at this path.
    pub async fn told(&self, path: &str) -> String {
        let answer = self.client.get(format!("http://127.0.0.1:{}{path}", self.admin)).send().await;
        answer.expect("an answer").text().await.expect("a text")
    }

    /// The status of its answer to a request with this token.
    pub async fn status(&self, token: Option<&str>) -> u16 {
        let mut request = self.client.get(format!("http://127.0.0.1:{}/sample/orders", self.port));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.expect("an answer").status().as_u16()
    }

    pub async fn accepts(&self, token: &str) {
        assert_eq!(self.status(Some(token)).await, 200, "{token}");
    }

    pub async fn refuses(&self, token: &str) {
        self.refuses_all(&[("", token.to_owned())]).await;
    }

    /// Checks that none of these is let through; the first half says why not.
    pub async fn refuses_all(&self, bad: &[(&str, String)]) {
        for (why, token) in bad {
            let status = self.status(Some(token)).await;
            // To Envoy a token for another audience is forbidden.
            assert!(matches!(status, 401 | 403), "{status}: {why}: {token}");
        }
    }
}
