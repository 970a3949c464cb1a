//! Envoy's `jwt_authn`, which fetches the key set by itself. It goes by the real time and allows a clock to be wrong by a
//! minute.

use std::process::Command;
use std::time::{Duration, Instant};

use keybearer::signing::Algorithm;
use tokio::time::sleep;

use crate::program::find;
use crate::scene::{Scene, on_demand};
use crate::servers::{Server, folder};

/// Starts one that keeps the key set for so long; `None`, and says so, when there is none.
async fn start(scene: &Scene, cache: &str) -> Option<Server> {
    let program = find("envoy")?;
    let values = [
        ("@URL@", scene.url.clone()),
        ("@GATEWAY@", scene.gateway.https().port().to_string()),
        ("@CA@", scene.gateway.authority().display().to_string()),
        ("@CACHE@", cache.to_owned()),
    ];
    let file = ("envoy.yaml", include_str!("envoy.yaml"));
    let server = Server::start(folder(), file, &values, |file| {
        let mut command = Command::new(&program);
        // More than one Envoy on a machine must not share the memory that one hands over to the next.
        command.arg("-c").arg(file).args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"]);
        command
    });
    Some(server.await)
}

/// How often it has fetched the key set.
async fn fetches(envoy: &Server) -> u32 {
    let told = envoy.told("/stats?filter=jwks_fetch_success").await;
    let count = told.trim().rsplit(": ").next().and_then(|count| count.parse().ok());
    count.unwrap_or_else(|| panic!("no count: {told}"))
}

/// It has fetched the key set once, before the next key signs, and does so no more: that key is good at once.
async fn knows_beforehand(algorithm: Algorithm) {
    let scene = Scene::start(|config| config.signing = on_demand(algorithm)).await;
    let before = scene.token().await;
    scene.publish_next().await;
    let Some(envoy) = start(&scene, "600s").await else { return };
    envoy.accepts(&before).await;
    envoy.refuses_all(&scene.bad().await).await;
    assert_eq!(envoy.status(None).await, 401);
    scene.activate_next().await;
    let after = scene.token().await;
    envoy.accepts(&after).await;
    envoy.accepts(&before).await;
    envoy.refuses_all(&scene.bad().await).await;
    assert_eq!(fetches(&envoy).await, 1);
}

/// It fetches the key set all along, and follows: a key that is gone is good no more.
async fn follows(algorithm: Algorithm) {
    const PATIENCE: Duration = Duration::from_secs(60);
    let scene = Scene::start(|config| config.signing = on_demand(algorithm)).await;
    let Some(envoy) = start(&scene, "1s").await else { return };
    let before = scene.token().await;
    envoy.accepts(&before).await;
    scene.publish_next().await;
    let (began, before_it) = (Instant::now(), fetches(&envoy).await);
    // It fetches when it is asked after a second.
    while fetches(&envoy).await == before_it {
        assert!(began.elapsed() < PATIENCE, "it does not fetch");
        envoy.accepts(&before).await;
        sleep(Duration::from_millis(20)).await;
    }
    scene.activate_next().await;
    let after = scene.token().await;
    envoy.accepts(&after).await;
    envoy.accepts(&before).await;
    scene.retire().await;
    while envoy.status(Some(&before)).await == 200 {
        assert!(began.elapsed() < PATIENCE, "it does not forget");
        envoy.accepts(&after).await;
        sleep(Duration::from_millis(20)).await;
    }
    envoy.refuses(&before).await;
    envoy.accepts(&after).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_verifies_rs256_through_a_rotation() {
    knows_beforehand(Algorithm::Rs256).await;
    follows(Algorithm::Rs256).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_verifies_es256_through_a_rotation() {
    knows_beforehand(Algorithm::Es256).await;
    follows(Algorithm::Es256).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_verifies_eddsa_through_a_rotation() {
    knows_beforehand(Algorithm::EdDsa).await;
    follows(Algorithm::EdDsa).await;
}
