//! Routes that ask for all of their groups.

use super::*;

/// Where a route asks for all of its groups, whoever sold one of them is paid for it.
#[tokio::test]
async fn for_each_group_that_is_asked_for_a_licence_is_charged() {
    let plans = vec![
        plan("one", &[("requests_per_day", 3)]),
        plan("two", &[("requests_per_day", 2)]),
        plan("both", &[("requests_per_day", 2)]),
    ];
    let mut all = echo("all", &["orders", SAMPLE]);
    all.all_groups = true;
    let mut external = echo("asked", &["orders", SAMPLE]);
    (external.all_groups, external.destination) = (true, Destination::External);
    let gateway = with_plans(plans)
        .route(all)
        .route(external)
        .with(|config| {
            config.forward_auth = Some(forward_auth::Settings {
                trusted: vec!["127.0.0.0/8".parse().unwrap()],
                ..forward_auth::Settings::default()
            });
        })
        .start()
        .await;
    settle(&gateway);
    let token = |limits: &[Value]| {
        let mut claims = forge::good_claims(gateway.now());
        claims["groups"] = json!(["orders", SAMPLE]);
        claims["scope"] = json!(format!("orders {SAMPLE}"));
        claims["limits"] = json!(limits);
        forge::ours().with_claims(&claims)
    };
    let new = |plan: &str, groups: &[&str]| licence(LicenceId::random(), plan, groups);
    let call = async |path: &str, token: &str| gateway.get(path).bearer(token).await;
    let said =
        |of: &[(&str, u64)]| of.iter().map(|(name, left)| ((*name).to_owned(), *left)).collect::<BTreeMap<_, _>>();

    let (one, two) = (new("one", &["orders"]), new("two", &[SAMPLE]));
    let mine = token(&[one.clone(), two.clone()]);
    assert_eq!(left(&call("/all/x", &mine).await), said(&[("one.day", 2), ("two.day", 1)]));
    assert_eq!(left(&call("/sample/x", &mine).await), said(&[("two.day", 0)]));
    let refused = call("/all/x", &mine).await;
    assert_eq!(refused.problem(429, "quota-exceeded")["violated-policies"], json!(["two.day"]));
    assert_eq!(left(&refused), said(&[("one.day", 2), ("two.day", 0)]), "and the other has not paid for it");
    let question = gateway.get("/authz/forward-auth").bearer(&mine).header("X-Forwarded-Uri", "/asked/x");
    let question = question.header("X-Forwarded-Method", "GET").header("X-Forwarded-Host", "api.example.com");
    let answer = question.header("X-Forwarded-Proto", "https").header("X-Forwarded-For", "203.0.113.7").await;
    assert_eq!((answer.status, left(&answer)), (429, said(&[("one.day", 2), ("two.day", 0)])));

    // A second subscription to one group goes on where the first has ended.
    let more = token(&[one.clone(), two.clone(), new("both", &[SAMPLE])]);
    assert_eq!(left(&call("/all/x", &more).await), said(&[("one.day", 1), ("both.day", 1)]));
    // One licence for both groups is charged once, and one that has to be charged for one group serves the other.
    let wide = token(&[new("both", &["orders", SAMPLE])]);
    for remaining in [1, 0] {
        assert_eq!(left(&call("/all/x", &wide).await), said(&[("both.day", remaining)]));
    }
    call("/all/x", &wide).await.problem(429, "quota-exceeded");
    let served = token(&[one.clone(), new("both", &["orders", SAMPLE])]);
    assert_eq!(left(&call("/all/x", &served).await), said(&[("both.day", 1)]));
    // What is granted without bounds is free, and so is what a licence grants whose plan nobody knows; the other is not.
    let fresh = new("one", &["orders"]);
    for (limits, remaining) in [(vec![fresh.clone()], 2), (vec![fresh.clone(), new("gone", &[SAMPLE])], 1)] {
        assert_eq!(left(&call("/all/x", &token(&limits)).await), said(&[("one.day", remaining)]));
    }
    let free = token(&[new("gone", &["orders"]), new("gone", &[SAMPLE])]);
    assert_eq!(call("/all/x", &free).await.header("ratelimit"), None);
}

/// However many come at once for both groups, and for one of them: no licence pays for what another one refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_groups_are_charged_or_none_under_concurrency() {
    let plans = vec![plan("one", &[("requests_per_day", 40)]), plan("two", &[("requests_per_day", 30)])];
    let mut all = echo("all", &["orders", SAMPLE]);
    all.all_groups = true;
    let gateway = Arc::new(with_plans(plans).route(all).route(echo("orders", &["orders"])).start().await);
    settle(&gateway);
    let limits = [licence(LicenceId::random(), "one", &["orders"]), licence(LicenceId::random(), "two", &[SAMPLE])];
    let mut claims = forge::good_claims(gateway.now());
    (claims["groups"], claims["scope"]) = (json!(["orders", SAMPLE]), json!(format!("orders {SAMPLE}")));
    claims["limits"] = json!(limits);
    let token = forge::ours().with_claims(&claims);
    let tasks: Vec<_> = (0..60)
        .map(|number| {
            let (gateway, token) = (Arc::clone(&gateway), token.clone());
            let path = ["/all/x", "/sample/x", "/orders/x"][number % 3];
            tokio::spawn(async move {
                let mut passed = 0;
                for _ in 0..3 {
                    passed += u64::from(gateway.get(path).over(BOTH[number % 2]).bearer(&token).await.status == 200);
                }
                passed
            })
        })
        .collect();
    let mut passed = [0; 3];
    for (number, task) in tasks.into_iter().enumerate() {
        passed[number % 3] += task.await.expect("it ends");
    }
    let [both, sample, orders] = passed;
    let said = left(&gateway.get("/all/x").bearer(&token).await);
    assert_eq!((said["one.day"], said["two.day"]), (40 - both - orders, 30 - both - sample), "{passed:?}");
    assert_eq!(both + sample, 30, "{passed:?}");
}
