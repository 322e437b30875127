#!/usr/bin/env bash
# `sluice bench` as a whole: every contender measured and verified, the JSON as described, the report written.
. "$(dirname "$0")/lib.bash"
need_kvm

timeout 300 "$SLUICE" bench --quick --runs 1 --time 100 --image-size 64M --json "$TMP/result.json" --report "$TMP/report" \
	>"$TMP/out" 2>"$TMP/err" </dev/null
status=$?
check "status 0" [ $status = 0 ]
[ $status = 0 ] || tail -n 20 "$TMP/err"
check "JSON: schema and host" jq -e '.schema_version == 1 and (.host.cpu | length > 0) and (.host.kvm | length > 0)
	and (.host.file_system | length > 0) and (.host.engine | length > 0)' "$TMP/result.json"
check "JSON: every field of every result" jq -e '.results | length >= 30 and all(
	has("device") and has("ring") and has("engine") and has("work") and has("size_bytes") and has("depth")
	and has("requests_per_s") and has("bytes_per_s") and has("p50_us") and has("p99_us") and has("p999_us")
	and has("exits_per_request") and has("doorbells_per_request") and has("irqs_per_request")
	and has("syscalls_per_request") and has("cpu_us_per_request") and has("errors") and has("verified")
	and has("samples") and has("min_per_s") and has("max_per_s") and has("transfer") and has("queues")
	and has("direct"))' "$TMP/result.json"
check "JSON: every device took part" jq -e '[.results[].device] | unique ==
	["e1000", "ide", "ne2k_pci", "virtio-blk", "virtio-net"]' "$TMP/result.json"
check "JSON: no errors, everything verified" jq -e '.results | all(.errors == 0 and .verified > 0 and .requests_per_s > 0)' \
	"$TMP/result.json"
[ $failures = 0 ] || jq -c '.results[] | select(.errors != 0 or .verified == 0 or .requests_per_s == 0)' "$TMP/result.json"
check "report: one self-contained page with plots" grep -q '<svg' "$TMP/report/index.html"
check "report: loads nothing from elsewhere" sh -c '! grep -Eq "(src|href)=\"?(http|//)" "$1/index.html"' sh "$TMP/report"
check "a wrong option: status 2" sh -c '"$1" bench --engine foo 2>/dev/null; [ $? = 2 ]' sh "$SLUICE"
# what each step buys: with by without, everything measured
timeout 120 "$SLUICE" bench --ablate --runs 1 --time 20 --image-size 16M --json "$TMP/ablate.json" --report "$TMP/ablate" \
	>"$TMP/out" 2>"$TMP/err" </dev/null
check "--ablate: status 0" [ $? = 0 ]
check "--ablate: every step of either device, verified" jq -e '
	([.results[] | select(.without) | [.device, .without]] | unique | length) >= 12 and
	([.results[] | select(.without == null) | .device] | unique) == ["e1000", "ide", "ne2k_pci", "virtio-blk", "virtio-net"] and
	(.results | all(.errors == 0 and .verified > 0))' "$TMP/ablate.json"
check "--ablate: coalesced registers save exits" jq -e '[.results[] | select(.device == "ide" and .transfer == "dma" and
	.work == "randread" and .depth == 1)] | (.[] | select(.without == null).exits_per_request) < (.[] | select(.without).exits_per_request)' \
	"$TMP/ablate.json"
check "--ablate: a plot" grep -q '<svg' "$TMP/ablate/index.html"
check "--ablate with --quick: status 2" sh -c '"$1" bench --ablate --quick 2>/dev/null; [ $? = 2 ]' sh "$SLUICE"
# the comparison with QEMU, its shortest part: figures, ratios, a page
if command -v qemu-system-x86_64 >/dev/null; then
	# with one round, however far apart the processors are
	NEAR_NS=1000000000 RUNS=1 MS=50 OUT=$TMP/monitors timeout 120 perf/monitors.sh start emulated >"$TMP/out" 2>&1 </dev/null
	check "monitors.sh: status 0" [ $? = 0 ]
	check "monitors.sh: figures, command lines and ratios of both" jq -e '
		(.ratios | length >= 6) and .left_out == [] and (.figures["qemu,ide-dma,randread"] | length == 1) and
		(.commands["qemu,ide-dma"] | test("-enable-kvm"))' "$TMP/monitors/result.json"
	check "monitors.sh: a page" grep -q '<svg' "$TMP/monitors/index.html"
else
	skip "monitors.sh" "QEMU is not installed"
fi
# an ordinary user, or none of a tap's rights: the rest is done all the same
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	setpriv --bounding-set -net_admin --inh-caps -net_admin timeout 120 "$SLUICE" bench --quick --runs 1 --time 20 --image-size 16M \
		--only echo >"$TMP/out" 2>"$TMP/err" </dev/null
	check "without the right to make a tap: says so, does the rest" sh -c \
		'grep -q "left out: works on a tap" "$1/err" && grep -q "virtio-net split" "$1/out"' sh "$TMP"
else
	skip "without the right to make a tap" "needs root and setpriv"
fi
finish
