//! The Demo group: its rate and plans, by client address.

use keybearer::limits::Rate;

use super::*;

#[tokio::test]
async fn the_demo_group_is_counted_by_client_address() {
    let gateway = with_plans(vec![plan("trial", &[("requests_per_hour", 2)])])
        .with(|config| config.demo.plan = Some("trial".parse().unwrap()))
        .behind_proxy(&["127.0.0.0/8"])
        .start()
        .await;
    settle(&gateway);
    let token = gateway.get("/demo").await.json()["token"].as_str().expect("a token").to_owned();
    let call = |path: &str, client: &str| {
        gateway.by_proxy(path).header("x-forwarded-for", client).header("x-forwarded-proto", "https").bearer(&token)
    };
    for (client, status, remaining) in [
        ("192.0.2.1", 200, 1),
        ("192.0.2.2", 200, 1),
        ("192.0.2.1", 200, 0),
        ("192.0.2.1", 429, 0),
        ("192.0.2.2", 200, 0),
        ("2001:db8::1", 200, 1),
        ("2001:db8::2:1", 200, 0),
        ("2001:db8::3", 429, 0),
        ("2001:db8:0:1::1", 200, 1),
    ] {
        let answer = call("/demo/time", client).await;
        assert_eq!((answer.status, left(&answer)["trial.hour"]), (status, remaining), "{client}");
    }
    assert_eq!(call("/whoami", "192.0.2.1").await.status, 200);
}

/// Anybody has its account, so on a route's plan no one uses up what is another's.
#[tokio::test]
async fn on_a_routes_plan_the_demo_group_is_counted_by_client_address() {
    let plans = || vec![plan("route", &[("requests_per_day", 2)]), plan("trial", &[("requests_per_hour", 3)])];
    let mut tight = echo("tight", &["demo"]);
    tight.plan = Some("route".parse().unwrap());
    let other = RouteSettings { plan: tight.plan.clone(), ..echo("other", &["demo"]) };
    for demo_plan in [None, Some("trial".parse().unwrap())] {
        let builder =
            with_plans(plans()).route(tight.clone()).route(other.clone()).behind_proxy(&["127.0.0.0/8"]).sqlite();
        let builder = builder.with(|config| config.demo.plan.clone_from(&demo_plan));
        let gateway = builder.start().await;
        settle(&gateway);
        let token = gateway.get("/demo").await.json()["token"].as_str().expect("a token").to_owned();
        let call = async |gateway: &TestGateway, path: &str, client: &str, bearer: &str| {
            let call = gateway.by_proxy(path).header("x-forwarded-for", client).header("x-forwarded-proto", "https");
            call.bearer(bearer).await
        };
        for (client, status, remaining) in [
            ("192.0.2.1", 200, 1),
            ("192.0.2.1", 200, 0),
            ("192.0.2.1", 429, 0),
            ("192.0.2.2", 200, 1),
            ("2001:db8::1", 200, 1),
            ("2001:db8::2:1", 200, 0),
            ("2001:db8::3", 429, 0),
            ("2001:db8:0:1::1", 200, 1),
        ] {
            let answer = call(&gateway, "/tight/x", client, &token).await;
            assert_eq!((answer.status, left(&answer)["route.day"]), (status, remaining), "{client}");
            assert_eq!(left(&answer).contains_key("trial.hour"), demo_plan.is_some(), "{client}");
            if status == 429 {
                let problem = answer.problem(429, "quota-exceeded");
                assert_eq!(problem["violated-policies"], json!(["route.day"]), "{client}");
            }
        }
        // On another route of that plan each has as much again.
        assert_eq!(left(&call(&gateway, "/other/x", "192.0.2.1", &token).await)["route.day"], 1);
        // An account is counted by itself, even one that is called like an address.
        for _ in 0..2 {
            let own = token_of(gateway.now(), "192.0.2.2", KeyId::random(), &[], None);
            let said = left(&call(&gateway, "/tight/x", "192.0.2.1", &own).await);
            assert!(said["route.day"] < 2 && said.len() == 1, "{said:?}");
        }
        assert_eq!(call(&gateway, "/tight/x", "192.0.2.1", &token).await.status, 429);
        // And all that is known after a restart.
        let gateway = gateway.restart().await;
        for (client, left_of_it) in [("192.0.2.1", 0), ("192.0.2.2", 0), ("2001:db8::9", 0), ("192.0.2.3", 1)] {
            let answer = call(&gateway, "/tight/x", client, &token).await;
            assert_eq!(left(&answer)["route.day"], left_of_it, "{client}");
            assert_eq!(answer.status == 429, ["192.0.2.1", "2001:db8::9"].contains(&client), "{client}");
        }
    }
}

/// Its rate is told on every answer that it was charged for, beside the plans, and where no plan is.
#[tokio::test]
async fn the_rate_of_the_demo_group_is_told() {
    let address = |r: &str, t: &str| ("demo.address".to_owned(), parameters(&format!(";r={r};t={t}")));
    let gateway = with_plans(vec![plan("trial", &[("requests_per_hour", 4)])])
        .with(|config| {
            config.demo.requests_per_address = Rate::new(6, Duration::from_secs(60));
            config.quotas.legacy_fields = true;
        })
        .start()
        .await;
    settle(&gateway);
    let token = gateway.get("/demo").await.json()["token"].as_str().expect("a token").to_owned();
    let call = async |path: &str| gateway.get(path).bearer(&token).await;
    let legacy = |answer: &Answer| {
        ["limit", "remaining", "reset"].map(|name| {
            let value = answer.header(&format!("x-ratelimit-{name}"));
            value.expect("the older field").parse::<u64>().expect("a number")
        })
    };
    for (path, status, left) in [("/demo/time", 200, "5"), ("/nowhere", 404, "4"), ("/whoami", 200, "3")] {
        let answer = call(path).await;
        assert_eq!(answer.status, status, "{path}");
        let policy = ("demo.address".to_owned(), parameters(";q=6;w=60"));
        assert_eq!(fields(&answer), (vec![policy], vec![address(left, "10")]), "{path}");
        assert_eq!(legacy(&answer), [6, left.parse().unwrap(), 10], "{path}");
        if path == "/whoami" {
            let quota = json!({
                "policy": "demo.address", "limit": "6 requests a minute", "per": "client address", "left": 3, "resets_in": 10,
            });
            assert_eq!(answer.json()["quotas"], json!([quota]));
        }
    }
    // What was refused for another reason was not charged, and says nothing.
    assert_eq!(call("/sample/x").await.header("ratelimit"), None);
    let mut config = gateway.config.clone();
    config.demo.plan = Some("trial".parse().unwrap());
    gateway.gateway.reload(&config).await.expect("a reload");
    let answer = call("/demo/time").await;
    assert_eq!(left(&answer), BTreeMap::from([("demo.address".to_owned(), 2), ("trial.hour".to_owned(), 3)]));
    assert_eq!(legacy(&answer), [6, 2, 10], "the tightest");
    let quotas = call("/whoami").await.json()["quotas"].clone();
    let told: Vec<_> =
        quotas.as_array().expect("a list").iter().map(|quota| (&quota["policy"], &quota["left"])).collect();
    assert_eq!(told, [(&json!("demo.address"), &json!(1)), (&json!("trial.hour"), &json!(3))]);
    gateway.advance(Duration::from_millis(1));
    assert_eq!(fields(&call("/demo/time").await).1[0], address("0", "10"));
    for (wait, retry_after) in [(0, "10"), (9_998, "1")] {
        gateway.advance(Duration::from_millis(wait));
        for http in BOTH {
            let refused = gateway.get("/demo/time").over(http).bearer(&token).await;
            let problem = refused.problem(429, "too-many-requests");
            assert!(problem["detail"].as_str().expect("text").contains("(demo.address)"), "{problem}");
            assert_eq!(refused.header("retry-after"), Some(retry_after));
            assert_eq!(fields(&refused).1, [address("0", retry_after)]);
        }
    }
    gateway.advance(Duration::from_millis(1));
    assert_eq!(
        left(&call("/demo/time").await),
        BTreeMap::from([("demo.address".to_owned(), 0), ("trial.hour".to_owned(), 1)])
    );
    // Whoever has a token of their own is not concerned.
    let own = forge::ours().with_claims(&forge::good_claims(gateway.now()));
    assert_eq!(gateway.get("/demo/time").bearer(&own).await.header("ratelimit"), None);
}

#[tokio::test]
async fn proxies_that_ask_are_told_the_rate_of_the_demo_group() {
    let mut route = echo("open", &["demo"]);
    route.destination = Destination::External;
    let gateway = TestGateway::build()
        .route(route)
        .with(|config| {
            config.demo.requests_per_address = Rate::new(2, Duration::from_secs(60));
            config.forward_auth = Some(forward_auth::Settings {
                trusted: vec!["127.0.0.0/8".parse().unwrap()],
                ..forward_auth::Settings::default()
            });
        })
        .start()
        .await;
    let token = gateway.get("/demo").await.json()["token"].as_str().expect("a token").to_owned();
    for (client, remaining, status) in
        [("203.0.113.7", 1, 200), ("203.0.113.7", 0, 200), ("203.0.113.7", 0, 429), ("203.0.113.8", 1, 200)]
    {
        let call = gateway.get("/authz/forward-auth").bearer(&token).header("X-Forwarded-Uri", "/open/x");
        let call = call.header("X-Forwarded-Method", "GET").header("X-Forwarded-Host", "api.example.com");
        let answer = call.header("X-Forwarded-Proto", "https").header("X-Forwarded-For", client).await;
        let said = BTreeMap::from([("demo.address".to_owned(), remaining)]);
        assert_eq!((answer.status, left(&answer)), (status, said), "{answer:?}");
    }
}
