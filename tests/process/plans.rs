//! Plans through restarts of the real program: what was used up is used up still.

use rustix::process::Signal;

use crate::https::bearer;
use crate::installation::Installation;

/// A route that each account may ask three times a month, and as often as it likes otherwise.
const PLANS: &str = "[quotas]\nflush_every = \"1m\"\n\
     [[plans]]\nid = \"trial\"\nrequests_per_month = 3\n\
     [[routes]]\nid = \"sample\"\npath = \"/sample/*\"\ngroups = [\"sample\"]\nresource = \"echo\"\nplan = \"trial\"\n";

#[test]
fn a_quota_outlives_the_process() {
    let installation = Installation::with(PLANS);
    let customer = installation.customer("acme");
    let mut answers = Vec::new();
    // Nothing is written but at the end of each.
    for _ in 0..3 {
        let server = installation.serve();
        let token = server.client().with_key(&customer.key).token();
        let mut connection = server.client().connect().expect("a connection");
        for _ in 0..2 {
            let answer = connection.call("GET", "/sample/a", Some(&bearer(&token))).expect("an answer");
            answers.push(answer.status);
            if answer.status == 429 {
                assert_eq!(answer.json()["violated-policies"], serde_json::json!(["trial.month"]));
            }
        }
        server.process.signal(Signal::TERM);
        let done = server.process.end();
        assert_eq!(done.code(), Some(0), "{done}");
    }
    assert_eq!(answers, [200, 200, 200, 429, 429, 429]);
    let listed = installation.ok(&["plans", "list"]);
    assert!(listed.contains("trial  3 requests a month  all gateways"), "{listed}");
}
