//! Licences as they are sold: seats that many processes ask for at once, and documents that a vendor signed elsewhere.

use std::thread;

use crate::installation::Installation;

#[test]
fn many_processes_never_take_more_seats_than_there_are() {
    let installation = Installation::new();
    installation.ok(&["groups", "create", "sample"]);
    installation.ok(&["accounts", "create", "acme"]);
    let licence = installation.ok(&["licences", "grant", "acme", "--group", "sample", "--seats", "3"]);
    let created: Vec<bool> = thread::scope(|scope| {
        let creators: Vec<_> =
            (0..8).map(|_| scope.spawn(|| installation.run(&["keys", "create", "acme"]).code() == Some(0))).collect();
        creators.into_iter().map(|creator| creator.join().expect("a creator")).collect()
    });
    assert_eq!(created.into_iter().filter(|created| *created).count(), 3);
    let list = installation.ok(&["keys", "list", "--account", "acme", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!(list["keys"].as_array().map(Vec::len), Some(3));
    installation.ok(&["licences", "upgrade", licence.trim(), "--seats", "4"]);
    installation.ok(&["keys", "create", "acme"]);
    assert_eq!(installation.run(&["keys", "create", "acme"]).code(), Some(1));
}

#[test]
fn a_signed_document_is_enforced_and_falls_with_the_trust_in_its_vendor() {
    let vendor = Installation::new();
    let (key_file, document) = (vendor.path("vendor.key"), vendor.path("acme.licence"));
    let [key_file, document] = [&key_file, &document].map(|path| path.to_str().expect("a path"));
    let public = vendor.ok(&["licences", "vendor-key", "new", key_file]);
    vendor.ok(&[
        "licences",
        "issue",
        "--sign",
        "--vendor-key",
        key_file,
        "--account",
        "acme",
        "--group",
        "sample",
        "--seats",
        "1",
        "--until",
        "30d",
        "--out",
        document,
    ]);

    let customer = Installation::with(&format!("[licences]\nvendor_keys = [\"{}\"]\n", public.trim()));
    customer.ok(&["accounts", "create", "acme"]);
    let server = customer.serve();
    customer.ok(&["licences", "install", document, "--create-groups"]);
    let key = customer.ok(&["keys", "create", "acme"]).trim().to_owned();
    assert_eq!(customer.run(&["keys", "create", "acme"]).code(), Some(1), "one seat");
    let token = server.client().with_key(&key).token();
    assert!(!token.is_empty());
    server.stop();

    customer.configure("");
    let server = customer.serve();
    server.until_logged("a licence from a document grants nothing");
    assert_eq!(server.client().with_key(&key).status, 401);
    assert_eq!(customer.run(&["check"]).code(), Some(1));
    server.stop();
}
