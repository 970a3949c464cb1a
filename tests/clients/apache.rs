//! Apache with `mod_auth_openidc`, which introspects every token.

use std::path::Path;
use std::process::Command;

use keybearer::groups::OPERATOR;

use crate::gateway::SAMPLE;
use crate::program::find;
use crate::scene::{OTHER, Scene};
use crate::servers::{Server, folder};

/// Where Debian has it.
const MODULES: &str = "/usr/lib/apache2/modules";

/// Starts one that asks this gateway; `None`, and says so, when something is missing.
async fn start(scene: &Scene) -> Option<Server> {
    let program = find("apache2")?;
    if !Path::new(MODULES).join("mod_auth_openidc.so").is_file() {
        println!("SKIPPED: Apache has no mod_auth_openidc: apt-get install libapache2-mod-auth-openidc");
        return None;
    }
    scene.gateway.group(OPERATOR, None).await;
    scene.gateway.account("office", None).await;
    scene.gateway.licence("office", &[OPERATOR], None).await;
    let asks = scene.gateway.key("office").await;

    let folder = folder();
    std::fs::create_dir_all(folder.path().join("htdocs/sample")).expect("a folder");
    std::fs::write(folder.path().join("htdocs/sample/orders"), "orders").expect("a file");
    // It asks as another user, who may not look into the gateway's folder.
    let authority = folder.path().join("ca.pem");
    std::fs::copy(scene.gateway.authority(), &authority).expect("a copy");
    make_readable(&authority);
    let values = [
        ("@FOLDER@", folder.path().display().to_string()),
        ("@MODULES@", MODULES.to_owned()),
        ("@URL@", scene.url.clone()),
        ("@CLIENT@", scene.gateway.config.key_prefix.name_of(asks.id())),
        ("@SECRET@", asks.secret().expose().clone()),
        ("@CA@", authority.display().to_string()),
    ];
    let file = ("apache.conf", include_str!("apache.conf"));
    let server = Server::start(folder, file, &values, |file| {
        let mut command = Command::new(&program);
        command.arg("-D").arg("FOREGROUND").arg("-f").arg(file);
        command
    });
    Some(server.await)
}

fn make_readable(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).expect("permissions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apache_lets_through_what_introspection_says_is_good_and_nothing_else() {
    let scene = Scene::start(|_| ()).await;
    let Some(server) = start(&scene).await else { return };
    let token = scene.token().await;
    for good in [&token, &scene.token_for(SAMPLE).await] {
        server.accepts(good).await;
    }
    server.refuses(&scene.token_for(OTHER).await).await;
    server.refuses_all(&scene.bad().await).await;
    assert_eq!(server.status(None).await, 401);

    // One token, and nothing else.
    let other = scene.token().await;
    server.accepts(&other).await;
    let revoked = scene.gateway.post("/revoke").form(&[("token", &other)]).key(&scene.key).await;
    assert_eq!(revoked.status, 200);
    server.refuses(&other).await;
    server.accepts(&token).await;

    // All of a key's.
    scene.gateway.revoke_key(&scene.key).await;
    scene.gateway.sync().await;
    server.refuses(&token).await;
}
