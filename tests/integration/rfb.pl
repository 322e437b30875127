#!/usr/bin/perl
# SPDX-License-Identifier: BSD-2-Clause
# A VNC viewer (RFC 6143) for tests: rfb.pl WHERE [keys=HEX,HEX...] [move=DX,DY]: connects to a socket's path or to ADDRESS:PORT,
# presses and releases keysyms, moves the pointer, gets the whole screen, and says how large it is and which colours are where.
use strict;
use warnings;
use Socket;

my ($where, %opt) = (shift, map { split /=/, $_, 2 } @ARGV);
my $s;
if ($where =~ /^([\d.]+):(\d+)$/) {
	my ($address, $port) = ($1, $2);
	socket($s, PF_INET, SOCK_STREAM, 0) && connect($s, sockaddr_in($port, inet_aton($address))) or die "connect: $!\n";
} else {
	socket($s, PF_UNIX, SOCK_STREAM, 0) && connect($s, sockaddr_un($where)) or die "connect: $!\n";
}
alarm 20;
sub get {
	my ($n, $got) = (shift, '');
	while (length $got < $n) { sysread($s, $got, $n - length $got, length $got) or die "closed\n" }
	return $got;
}
sub put { syswrite($s, $_[0]) == length $_[0] or die "write: $!\n" }

get(12) =~ /^RFB 003\.008\n$/ or die "no RFB 3.8\n";
put("RFB 003.008\n");
my @security = unpack('C*', get(unpack('C', get(1))));
grep { $_ == 1 } @security or do { print "security @security\n"; exit 0 };
put(pack('C', 1));
unpack('N', get(4)) == 0 or die "refused\n";
put(pack('C', 1));
my ($width, $height) = unpack('nn', get(4));
get(16);
my $name = get(unpack('N', get(4)));
# 32 bits, little-endian, red 16, green 8, blue 0; raw
put(pack('C x3 C4 n3 C3 x3', 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0));
put(pack('C x n N', 2, 1, 0));
for my $key (split /,/, $opt{keys} // '') {
	put(pack('C C x2 N', 4, 1, hex $key));
	put(pack('C C x2 N', 4, 0, hex $key));
}
if ($opt{move}) {
	my ($dx, $dy) = split /,/, $opt{move};
	put(pack('C C n n', 5, 0, 100, 100));
	put(pack('C C n n', 5, 1, 100 + $dx, 100 + $dy));
}
put(pack('C C n4', 3, 0, 0, 0, $width, $height));
my ($left, %colors, %lit) = ($width * $height);
while ($left > 0) {
	my $type = unpack('C', get(1));
	$type == 0 or die "message $type\n";
	get(1);
	for (1 .. unpack('n', get(2))) {
		my ($x, $y, $w, $h, $encoding) = unpack('n4 N', get(12));
		$encoding == 0 or die "encoding $encoding\n";
		my @pixels = map { $_ & 0xffffff } unpack('V*', get($w * $h * 4));
		for my $i (0 .. $#pixels) {
			$colors{sprintf '%06x', $pixels[$i]}++;
		}
		$left -= $w * $h;
	}
}
print "name $name size ${width}x$height colors ", join(' ', map { "$_:$colors{$_}" } sort keys %colors), "\n";
