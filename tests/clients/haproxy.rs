//! HAProxy's `jwt_verify`, which takes PEM files: the operator fetches the key set, and reloads HAProxy.

use std::process::Command;

use keybearer::signing::Algorithm;

use crate::program::find;
use crate::published::{jwks, kids};
use crate::scene::{Scene, on_demand};
use crate::script;
use crate::servers::{Server, folder};

/// Starts one with the keys that are published now; `None`, and says so, when something is missing.
async fn start(scene: &Scene, algorithm: Algorithm) -> Option<Server> {
    let program = find("haproxy")?;
    let folder = folder();
    let mut command = script::command("jwks_to_pem.py", &scene.gateway, folder.path())?;
    command.arg(format!("{}/.well-known/jwks.json", scene.url)).arg(folder.path());
    let made = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let rules = kids(&jwks(&scene.gateway).await).into_iter().map(|kid| {
        let file = folder.path().join(format!("{kid}.pem"));
        let verified = format!("var(txn.token),jwt_verify(txn.alg,\"{}\")", file.display());
        // One in 64 begins with a hyphen, which would be an option.
        format!("    http-request set-var(txn.verified) {verified} if {{ var(txn.kid) -m str -- {kid} }}\n")
    });
    let values =
        [("@KEYS@", rules.collect()), ("@URL@", scene.url.clone()), ("@ALGORITHM@", algorithm.as_str().to_owned())];
    let file = ("haproxy.cfg", include_str!("haproxy.cfg"));
    let server = Server::start(folder, file, &values, |file| {
        let mut command = Command::new(&program);
        command.arg("-db").arg("-f").arg(file);
        command
    });
    Some(server.await)
}

async fn play(algorithm: Algorithm) {
    let scene = Scene::start(|config| config.signing = on_demand(algorithm)).await;
    let before = scene.token().await;
    scene.publish_next().await;
    let Some(server) = start(&scene, algorithm).await else { return };
    server.accepts(&before).await;
    server.refuses_all(&scene.bad().await).await;
    assert_eq!(server.status(None).await, 401);
    // With the files of before.
    scene.activate_next().await;
    let after = scene.token().await;
    server.accepts(&after).await;
    server.accepts(&before).await;
    server.refuses_all(&scene.bad().await).await;
    drop(server);
    scene.retire().await;
    let Some(server) = start(&scene, algorithm).await else { return };
    server.accepts(&after).await;
    server.refuses(&before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_verifies_rs256_through_a_rotation() {
    play(Algorithm::Rs256).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_verifies_es256_through_a_rotation() {
    play(Algorithm::Es256).await;
}
