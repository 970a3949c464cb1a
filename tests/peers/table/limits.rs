//! What clients and the API hear of plans, and of the rate of the Demo group.

use super::Case;
use crate::api::ANSWER;
use crate::client::{Answer, BOTH};
use crate::keybearer::{DEMO_REQUESTS, PLAN_REQUESTS};

impl Case {
    pub(super) async fn passes_the_limit_on(&self) {
        let token = self.keybearer.demo().await;
        for left in (0..DEMO_REQUESTS).rev() {
            let answer = self.caller.get("/free/1", &token).await;
            self.assert_passed(&answer, "demo.address", left);
        }
        self.assert_too_many(&self.caller.get("/free/1", &token).await, "demo.address");
    }

    pub(super) async fn passes_quotas_on(&self) {
        let token = self.keybearer.good().await;
        let authorization = format!("Bearer {token}");
        let with = [("authorization", authorization.as_str())];
        for (left, http) in (0..PLAN_REQUESTS).rev().zip(BOTH) {
            // The API has limits of its own.
            let answer = self.caller.send(http, "GET", "/counted/own", &with, &[]).await;
            self.assert_passed(&answer, "small.day", left);
            assert!(said(&answer, "ratelimit").contains("\"api\";r=7;t=1"), "{:?}: {answer:?}", self.kind);
            assert!(said(&answer, "ratelimit-policy").contains("\"api\";q=9;w=1"), "{:?}: {answer:?}", self.kind);
            let limits = said(&answer, "x-ratelimit-limit");
            let is_there = limits.split(", ").any(|limit| limit == "9");
            assert_eq!(is_there, !self.kind.replaces_older_fields(), "{:?}: {answer:?}", self.kind);
        }
        for http in BOTH {
            self.assert_too_many(&self.caller.send(http, "GET", "/counted/own", &with, &[]).await, "small.day");
        }
        // Where there is no limit, nothing is said of one.
        let answer = self.caller.get("/orders/1", &token).await;
        assert_eq!((answer.status, said(&answer, "ratelimit")), (200, String::new()), "{:?}", self.kind);
        let other = ["ratelimit-policy", "x-ratelimit-limit", "deprecation", "sunset"].map(|name| said(&answer, name));
        assert_eq!(other.concat(), "", "{:?}: {answer:?}", self.kind);
        self.only_seen();
    }

    pub(super) async fn tells_of_an_old_key(&self) {
        let token = self.keybearer.old().await;
        let answer = self.caller.get("/orders/1", &token).await;
        assert_eq!(answer.status, 200, "{:?}: {answer:?}", self.kind);
        let seen = self.only_seen();
        assert!(!seen.headers.contains_key("deprecation"), "{:?}: {seen:?}", self.kind);
        let (since, until) = (said(&answer, "deprecation"), said(&answer, "sunset"));
        let is_told = since.starts_with('@') && !since.contains(',') && until.ends_with("GMT");
        assert_eq!(is_told, self.kind.tells_what_is_left(), "{:?}: {answer:?}", self.kind);
    }

    /// A proxy that has no room for an answer takes it for none.
    pub(super) async fn understands_the_longest_answer(&self) {
        let token = self.keybearer.long().await;
        let answer = self.caller.get("/long/1", &token).await;
        let groups = self.only_seen().headers["x-auth-groups"].len();
        assert!(groups > 1900, "{:?}: {groups} bytes of groups: {answer:?}", self.kind);
        assert_eq!(answer.status, 200, "{:?}: {answer:?}", self.kind);
        let limits = said(&answer, "ratelimit-policy").matches(";q=").count();
        assert_eq!(limits, if self.kind.tells_what_is_left() { 8 } else { 0 }, "{:?}: {answer:?}", self.kind);
    }

    /// The API answered, and the client knows what is left of its limit. To the API that is nothing.
    #[track_caller]
    fn assert_passed(&self, answer: &Answer, policy: &str, left: u32) {
        assert_eq!((answer.status, answer.body.as_str()), (200, ANSWER), "{:?}: {answer:?}", self.kind);
        let seen = self.only_seen();
        let is_limit = |name: &http::HeaderName| name.as_str().contains("ratelimit");
        assert!(!seen.headers.keys().any(is_limit), "{:?}: {seen:?}", self.kind);
        if self.kind.tells_what_is_left() {
            self.assert_told(answer, policy, left);
        } else {
            assert!(!said(answer, "ratelimit").contains(policy), "{:?} can do it: say so", self.kind);
        }
    }

    /// Its limit is used up: the client knows which one, and how long to wait, and the API hears nothing of it.
    #[track_caller]
    fn assert_too_many(&self, answer: &Answer, policy: &str) {
        self.assert_refused(answer, 429);
        self.assert_told(answer, policy, 0);
        let wait = answer.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
        assert!(wait.is_some_and(|wait| wait > 0), "{:?}: {answer:?}", self.kind);
        let (reason, kind) = match policy {
            "demo.address" => ("demo_rate", "too-many-requests"),
            _ => ("quota_exceeded", "quota-exceeded"),
        };
        let problem = answer.json();
        if self.kind.program() == "nginx" {
            assert_eq!(problem["reason"], reason, "{:?}: {answer:?}", self.kind);
        } else {
            assert_eq!(problem["type"], format!("urn:keybearer:problem:{kind}"), "{:?}: {answer:?}", self.kind);
            assert_eq!(answer.header("x-auth-reason"), Some(reason), "{:?}: {answer:?}", self.kind);
        }
        self.nothing_reached_the_api("a request too many");
    }

    #[track_caller]
    fn assert_told(&self, answer: &Answer, policy: &str, left: u32) {
        let told = said(answer, "ratelimit").contains(&format!("\"{policy}\";r={left};t="));
        let told = told && said(answer, "ratelimit-policy").contains(&format!("\"{policy}\";q="));
        let older = said(answer, "x-ratelimit-remaining") == left.to_string();
        let older = older && ["limit", "reset"].iter().all(|of| !said(answer, &format!("x-ratelimit-{of}")).is_empty());
        assert!(told && older, "{:?}: {policy}, {left}: {answer:?}", self.kind);
    }
}

/// All that an answer says under a name, lines as a list (RFC 9110 §5.3).
fn said(answer: &Answer, name: &str) -> String {
    let lines: Vec<_> =
        answer.headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    lines.join(", ")
}
