#!/bin/bash
# build.sh [OUT] builds the Debian package of this machine's architecture and prints
# its path. The tree is to be built already (make deb does).
#
# DEB_VERSION is the version without Debian's revision: a tag v1.2.3 gives 1.2.3,
# anything else one that says from which commit, and is lower than any tag.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-bin}

epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
day=$(date -u -d "@$epoch" +%Y%m%d)
if [ -z "${DEB_VERSION:-}" ]; then
	if tag=$(git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null); then
		DEB_VERSION=${tag#v}
	elif tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null); then
		DEB_VERSION=${tag#v}+git$day.$(git rev-parse --short=9 HEAD)
	else
		DEB_VERSION=0.0.0~git$day.$(git rev-parse --short=9 HEAD)
	fi
fi
DEB_VERSION+=-1
DEB_ARCH=$(go env GOARCH)
DEB_MTIME=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
DEB_MAINTAINER=${DEB_MAINTAINER:-The twindvr authors <twindvr@users.noreply.github.com>}
DEB_STAGE=$(mktemp -d)
trap 'rm -rf "$DEB_STAGE" "$DEB_STAGE.yaml"' EXIT
chmod 0755 "$DEB_STAGE"

# A binary without cgo needs no library of the system.
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/twindvr/twindvr/pkg/cli.release=${DEB_VERSION%-1}" -o "$DEB_STAGE/twindvr" ./cmd/twindvr
make --no-print-directory -s install-files DESTDIR="$DEB_STAGE" PREFIX=/usr UNITDIR=/lib/systemd/system BINARY="$DEB_STAGE/twindvr"
rm "$DEB_STAGE/twindvr"
cd "$DEB_STAGE"
mkdir -p usr/share/zsh/vendor-completions usr/share/doc/twindvr/examples usr/share/lintian/overrides usr/lib/sysctl.d
mv usr/share/zsh/site-functions/_twindvr usr/share/zsh/vendor-completions/
rmdir usr/share/zsh/site-functions
cd - >/dev/null
doc=$DEB_STAGE/usr/share/doc/twindvr
install -m 0644 README.md STREAMS.md "$doc"
install -m 0644 scripts/job.env scripts/alerts.yml scripts/alerts_test.yml scripts/dashboard.json "$doc/examples"
install -m 0644 scripts/deb/copyright "$doc/copyright"
install -m 0644 scripts/deb/sysctl.conf "$DEB_STAGE/usr/lib/sysctl.d/50-twindvr.conf"
install -m 0644 scripts/deb/lintian-overrides "$DEB_STAGE/usr/share/lintian/overrides/twindvr"
install -m 0644 CHANGELOG.md "$doc/changelog"
cat >"$doc/changelog.Debian" <<END
twindvr ($DEB_VERSION) unstable; urgency=medium

  * What changes is in /usr/share/doc/twindvr/changelog.gz.

 -- $DEB_MAINTAINER  $(date -u -R -d "@$epoch")
END
gzip -9n "$doc/changelog" "$doc/changelog.Debian" "$doc/STREAMS.md" "$DEB_STAGE"/usr/share/man/man*/*
find "$DEB_STAGE" -exec touch -h -d "@$epoch" {} +

mkdir -p "$out"
package=$(realpath "$out")/twindvr_${DEB_VERSION}_$DEB_ARCH.deb
root=$PWD
nfpm() { (cd scripts/deb && go build -o "$root/bin/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm) && bin/nfpm "$@"; }
sed -e "s|\${DEB_MTIME}|$DEB_MTIME|; s|\${DEB_STAGE}|$DEB_STAGE|; s|\${DEB_ARCH}|$DEB_ARCH|" \
	-e "s|\${DEB_VERSION}|$DEB_VERSION|; s|\${DEB_MAINTAINER}|$DEB_MAINTAINER|" scripts/deb/nfpm.yaml >"$DEB_STAGE.yaml"
nfpm package --config "$DEB_STAGE.yaml" --packager deb --target "$package" >&2
echo "$package"
