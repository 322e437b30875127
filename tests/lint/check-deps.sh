#!/usr/bin/env bash
# The direction of the arrows between folders, and who may see which foreign header. Prints each breach; silent when there is none.
set -u
cd "$(dirname "$0")/../.."
bad=0

breach() { printf 'FAIL %s\n' "$1"; bad=1; }

# folder: what it may include of ours, beside itself
allowed() {
	case $1 in
	ring) echo "" ;;
	blk | netbridge) echo "" ;;
	backend) echo "ring blk netbridge" ;;
	vmm) echo "backend ring blk netbridge" ;;
	frontend-drivers) echo "ring" ;;
	perf | tests) echo "ring blk netbridge backend vmm frontend-drivers perf tests" ;;
	*) echo "" ;;
	esac
}

for f in $(git ls-files -co --exclude-standard '*.c' '*.h' '*.S'); do
	folder=${f%%/*}
	while IFS=: read -r line inc; do
		target=${inc%%/*}
		if [ "$target" = "$inc" ]; then
			[ -e "$(dirname "$f")/$inc" ] && continue
			breach "$f:$line: \"$inc\": name the folder"
			continue
		fi
		[ -e "$inc" ] || continue
		case $inc in
		*_priv.h) [ "$target" = "$folder" ] || breach "$f:$line: $inc is private to $target/" ;;
		esac
		[ "$target" = "$folder" ] && continue
		case " $(allowed "$folder") " in
		*" $target "*) ;;
		*) breach "$f:$line: $folder/ may not include $target/" ;;
		esac
		case $inc in
		ring/ring.h | blk/blk.h | netbridge/netbridge.h | backend/backend.h | vmm/vmm.h | frontend-drivers/frontend.h | perf/pattern.h | *_priv.h) ;;
		tests/unit/unit.h | tests/*) [ "$folder" = tests ] || breach "$f:$line: $inc is for tests" ;;
		*) breach "$f:$line: $inc is not the public header of $target/" ;;
		esac
	done < <(grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$f" | sed 's/^\([0-9]*\):[^"]*"\([^"]*\)".*/\1:\2/')
	if grep -q '#[[:space:]]*include[[:space:]]*<liburing.h>' "$f"; then
		case $f in *_uring.c) ;; *) breach "$f: <liburing.h> belongs in files named *_uring.c" ;; esac
	fi
	if grep -q '#[[:space:]]*include[[:space:]]*<linux/kvm.h>' "$f" && [ "$folder" != vmm ]; then
		breach "$f: <linux/kvm.h> belongs in vmm/"
	fi
	if grep -q '#[[:space:]]*include[[:space:]]*<rte_' "$f" && [ "$folder" != netbridge ]; then
		breach "$f: DPDK's headers belong in netbridge/"
	fi
	# conditional compilation: include guards and the platform header only
	if grep -nE '^[[:space:]]*#[[:space:]]*(ifdef|if |elif)' "$f" | grep -q . && [ "$f" != ring/ring_platform.h ]; then
		breach "$f: conditional compilation outside the platform header"
	fi
done

# nothing of ours may depend on perf/ but perf/ and tests/; no constructors, no linker sections for tables
if git grep -nE '__attribute__\(\((constructor|section)' -- ring blk netbridge backend vmm perf/*.c | grep -v guest; then
	breach "constructors and linker sections are not used"
fi
# the top level is fixed
for e in $(git ls-files | cut -d/ -f1 | sort -u); do
	case $e in
	Makefile | README.md | LICENSE | .* | vmm | backend | frontend-drivers | ring | netbridge | blk | perf | tests) ;;
	*) breach "$e does not belong at the top level" ;;
	esac
done
[ "$bad" = 0 ] && echo "PASS check-deps"
exit $bad
