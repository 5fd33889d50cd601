//! A run that proves nothing says so: each way in which a property can look fine without having
//! been put to the test is inconclusive, with the edit that would settle it. And a system without
//! a breaker fails the property of a breaker.

use crate::scene::{Done, PAIR, Scene};

/// Half a second of warm-up, 1.5 s of baseline, a fault of 2 s, 1.5 s of recovery.
fn scenario(fault: &str, expect: &str) -> String {
    format!(
        "load: {{ journeys: {{ call: 1 }}, arrivals: 50/s, timeout: 1s }}\n\
         phases: {{ warm-up: 500ms, baseline: 1500ms, recovery: 1500ms }}\n\
         faults: {{ broken: {{ at: 0s, for: 2s, {fault} }} }}\n\
         expect: {{ judged: {expect} }}\n"
    )
}

/// Exit 3, the reason and the edit that would settle it.
#[track_caller]
fn is_inconclusive(done: &Done, why: &str, help: &str) {
    done.ends(3, &["INCONCLUSIVE  judged"]);
    let verdict = done.verdict("judged");
    assert_eq!(verdict["status"], "inconclusive", "{verdict}");
    assert!(
        verdict["why"].as_str().is_some_and(|it| it.contains(why)),
        "{verdict}"
    );
    assert!(
        verdict["help"].as_str().is_some_and(|it| it.contains(help)),
        "{verdict}"
    );
}

#[test]
fn fault_on_a_link_that_nothing_uses_proves_nothing() {
    let expect = "{ errors: { operation: call, during: broken, at-most: 10% } }";
    let scenario = scenario("link: caller -> spare, inject: blackhole", expect);
    let done = Scene::new(PAIR, &scenario).run();
    is_inconclusive(
        &done,
        "did not bite: it touched 0 requests on caller -> spare",
        "drive load",
    );
}

#[test]
fn fault_too_weak_to_be_felt_proves_nothing() {
    let expect = "{ errors: { operation: call, during: broken, at-most: 10% } }";
    // The callee's own answers vary by more than what the fault adds.
    let scenario = scenario("link: caller -> callee, inject: { latency: 1ms }", expect);
    let done = Scene::new(PAIR, &scenario)
        .with("CALLEE_FLAG", "--spread-ms=150")
        .run();
    is_inconclusive(&done, "did not bite", "stronger");
}

#[test]
fn fault_that_is_there_and_does_nothing_proves_nothing() {
    let expect = "{ errors: { operation: call, during: broken, at-most: 10% } }";
    let scenario = scenario(
        "link: caller -> callee, inject: { limit-data: 1GiB }",
        expect,
    );
    let done = Scene::new(PAIR, &scenario).run();
    is_inconclusive(
        &done,
        "did not bite: it touched 0 requests on caller -> callee",
        "stronger",
    );
}

#[test]
fn percentile_of_a_step_that_was_mostly_skipped_proves_nothing() {
    // The plan expects 100 of `second`. While the callee is silent, every `first` is refused, and
    // who was refused goes no further.
    let journey = "
  two:
    target: caller.http
    steps:
      - name: first
        request: { get: /call/first }
        outcome: { done: [200], refused: [502] }
        capture: { path: { json: .path } }
      - name: second
        request: { get: /second/$(path) }
";
    let system = PAIR.replace("\nevidence:", &format!("{journey}\nevidence:"));
    let expect = "{ latency: { operation: second, during: broken, p90: 900ms } }";
    let scenario = scenario("link: caller -> callee, inject: blackhole", expect);
    let done = Scene::new(&system, &scenario.replace("call: 1", "two: 1")).run();
    is_inconclusive(&done, "operations", "");
}

#[test]
fn absence_without_a_drain_proves_nothing() {
    let expect = "{ conserved: { left: given, right: taken } }";
    let scenario = scenario("link: caller -> callee, inject: { latency: 50ms }", expect);
    let done = Scene::new(PAIR, &scenario).run();
    is_inconclusive(&done, "was not drained", "phases: { drain:");
}

#[test]
fn system_without_a_breaker_fails_the_property_of_a_breaker() {
    let expect = "{ breaker: { link: caller -> callee, during: broken, opens-within: 500ms, blocks-at-least: 90% } }";
    let scenario = scenario(
        "link: caller -> callee, direction: response, inject: blackhole",
        expect,
    );
    let scenario = scenario.replace("50/s", "100/s");
    let done = Scene::new(PAIR, &scenario).run();
    done.ends(1, &["FAIL          judged"]);
    let verdict = done.verdict("judged");
    assert_eq!(verdict["blames"][0], "caller -> callee", "{verdict}");
}
