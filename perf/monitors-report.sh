#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# monitors-report.sh FROM TO: result.json and index.html in TO, of the figures that monitors.sh left in FROM.
from=$1 to=$2
set -e
jq -n --rawfile facts "$from/facts" --rawfile ratios "$from/ratios" --rawfile figures "$from/figures" \
	--rawfile commands "$from/commands" --rawfile left "$from/left-out" '
	def lines: split("\n") | map(select(. != ""));
	{
		schema_version: 1,
		host: ($facts | lines),
		ratios: ($ratios | lines | map(split("\t") | {
			part: .[0], title: .[1], median: (.[2] | tonumber), least: (.[3] | tonumber), most: (.[4] | tonumber),
			rounds: (.[5] | tonumber), relation: .[6], goal: (if .[7] == "" then null else .[7] | tonumber end),
			reached: (if .[8] == "" then null else .[8] == "pass" end), a: .[9], b: (if .[10] == "" then null else .[10] end)
		})),
		figures: ($figures | lines | map(split(" ")) | group_by(.[0]) | map({key: .[0][0], value: map(.[2] | tonumber)}) | from_entries),
		commands: ($commands | lines | map(split("\t") | {key: .[0], value: .[1]}) | from_entries),
		left_out: ($left | lines | map(split("\t") | {what: .[0], why: .[1]}))
	}' >"$to/result.json"

# A bar is as long as the logarithm of its ratio, from a tenth to a hundred; the thin line is its spread, the mark the goal.
jq -r '
	def at: if . <= 0.1 then 0 elif . >= 100 then 300 else ((log10 + 1) * 100) end | floor;
	def text: tostring | @html;
	def round2: if . < 0.01 then (. * 10000 | round) / 10000 else (. * 100 | round) / 100 end;
	def bar: "<svg width=\"300\" height=\"16\" role=\"img\"><rect x=\"0\" y=\"4\" width=\"\(.median | at)\" height=\"8\" class=\"\(
			if .reached == false then "short" else "good" end)\"/><line x1=\"\(.least | at)\" x2=\"\(.most | at)\" y1=\"8\" y2=\"8\"/>\(
			if .goal then "<rect x=\"\(.goal | at)\" y=\"0\" width=\"2\" height=\"16\" class=\"goal\"/>" else "" end)</svg>";
	"<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sluice and QEMU, side by side</title><style>",
	"body{font:15px/1.4 sans-serif;margin:2em auto;max-width:70em;color:#222}table{border-collapse:collapse;width:100%}",
	"td,th{padding:.25em .6em;text-align:left;border-bottom:1px solid #ddd;vertical-align:top}td.n{text-align:right;white-space:nowrap}",
	"code{font-size:12px;word-break:break-all}.good{fill:#4a8}.short{fill:#c75}.goal{fill:#222}line{stroke:#222}</style>",
	"<h1>Sluice and QEMU, side by side</h1>", (.host | map("<div>\(text)</div>") | join("")),
	"<p>A ratio is the median of the ratios of the rounds; in brackets the least and the most. Bars are logarithmic, from 0.1 to 100; the black mark is the goal.</p>",
	(.ratios | group_by(.part)[] | "<h2>\(.[0].part | text)</h2><table><tr><th>what<th>ratio<th>spread<th>goal<th></tr>",
		(.[] | "<tr><td>\(.title | text)<td class=n>\(.median | round2)\(if .b then "×" else "" end)<td class=n>\(.least | round2) to \(.most | round2), n=\(.rounds)<td class=n>\(
			if .goal then "\(if .relation == "most" then "at most " else "" end)\(.goal): \(if .reached then "reached" else "short" end)" else "" end)<td>\(bar)</tr>"),
		"</table>"),
	(if .left_out != [] then "<h2>not measured</h2><ul>", (.left_out[] | "<li>\(.what | text): \(.why | text)"), "</ul>" else empty end),
	"<h2>figures, round by round</h2><table><tr><th>contender<th>figures</tr>",
	(.figures | to_entries[] | "<tr><td>\(.key | text)<td class=n>\(.value | map(. * 1000 | round / 1000 | tostring) | join(" "))</tr>"),
	"</table><h2>command lines</h2><table>", (.commands | to_entries[] | "<tr><td>\(.key | text)<td><code>\(.value | text)</code></tr>"),
	"</table></html>"' "$to/result.json" >"$to/index.html"
