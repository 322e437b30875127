#!/usr/bin/env perl
# SPDX-License-Identifier: BSD-2-Clause
# Numbered frames in the format of pcap: vhost-frames.pl make FROM TO COUNT writes them to standard output;
# check FROM TO COUNT reads what became of them and wants all, unchanged and in their order.
use strict;
use warnings;

sub address { return pack("H12", $_[0] =~ s/://gr) }

# A frame of 64 bytes: addresses, a type for experiments, the number, and bytes that follow from it.
sub frame {
	my ($from, $to, $n) = @_;
	return address($to) . address($from) . pack("nN", 0x88b5, $n) . join("", map { chr(($n * 31 + $_ * 7) & 255) } 0 .. 45);
}

my ($what, $from, $to, $count) = @ARGV;
die "usage: vhost-frames.pl make|check FROM TO COUNT\n" unless defined $count && $what =~ /^(make|check)$/;
binmode $_ for *STDIN, *STDOUT;
if ($what eq "make") {
	print pack("LSSlLLL", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1);
	print pack("LLLL", 0, $_, 64, 64), frame($from, $to, $_) for 0 .. $count - 1;
	exit 0;
}
local $/;
my $data = <STDIN> // "";
my ($at, $n) = (24, 0);
die "no capture\n" if length($data) < $at;
while ($at + 16 <= length($data)) {
	my (undef, undef, $len) = unpack("LLL", substr($data, $at, 12));
	my $got = substr($data, $at + 16, $len);
	$at += 16 + $len;
	# what others say on the way is none of ours
	next if length($got) < 14 || unpack("n", substr($got, 12, 2)) != 0x88b5;
	die "frame $n is not what was sent\n" if $got ne frame($from, $to, $n);
	$n++;
}
die "$n of $count frames came\n" if $n != $count;
print "$n frames\n";
