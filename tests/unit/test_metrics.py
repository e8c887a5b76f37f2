from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from emarsys_cdp.metrics import MAX_NOTED, Metrics


def samples(metrics: Metrics) -> dict[str, float]:
    """Return the counters as Prometheus reads them: name and labels to value."""
    return {
        f"{sample.name} {' '.join(value for _, value in sorted(sample.labels.items()))}": sample.value
        for family in text_string_to_metric_families(metrics.expose().decode())
        for sample in family.samples
    }


def test_nothing_that_is_noted_is_lost() -> None:
    """Counters add up over looks, and times over what is noted at most."""
    metrics, number = Metrics(), 2 * MAX_NOTED + 1
    for _ in range(2):
        for _ in range(number):
            metrics.observe("/batch", 200, 0.3)
        metrics.observe("/batch", 503, 20)
        metrics.count_calls("rudderstack", "identify", "request", 3)
        metrics.count_calls("rudderstack", "identify", "request")
        metrics.count_calls("rudderstack", "strange", "refused")
        metrics.count_request("contact/?create_if_not_exists=1")
        metrics.count_warning("id_blocked")
        found = samples(metrics)

    assert found["emarsys_cdp_http_seconds_count /batch 200"] == 2 * number
    assert round(found["emarsys_cdp_http_seconds_sum /batch 200"], 6) == round(2 * number * 0.3, 6)
    assert found["emarsys_cdp_http_seconds_bucket 0.25 /batch 200"] == 0
    assert found["emarsys_cdp_http_seconds_bucket 0.5 /batch 200"] == 2 * number
    assert found["emarsys_cdp_http_seconds_count /batch 503"] == 2
    assert found["emarsys_cdp_calls_total rudderstack request identify"] == 8
    assert found["emarsys_cdp_calls_total rudderstack refused other"] == 2
    assert found["emarsys_cdp_requests_total contact"] == 2
    assert found["emarsys_cdp_warnings_total id_blocked"] == 2
