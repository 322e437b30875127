#!/usr/bin/perl
# SPDX-License-Identifier: BSD-2-Clause
# Talks to a guest's console as a person would: console.pl SCRIPT COMMAND... runs the command with its standard
# input and output on pipes. A line of SCRIPT is one of
#   expect SECONDS REGEX    waits for it in the output that has not been matched yet; else says FAIL and ends with 1
#   send TEXT               types it and the return key
#   kill                    SIGKILL to the command: the plug
#   wait SECONDS            for the command's end
# All output is passed on. The status is the command's own, 137 when it was killed.
use strict;
use warnings;
use IPC::Open2;
use Time::HiRes qw(time);

my ($script, @command) = @ARGV;
open(my $steps, '<', $script) or die "$script: $!\n";
$| = 1;
$SIG{PIPE} = 'IGNORE';
my $pid = open2(my $out, my $in, @command);
$SIG{TERM} = $SIG{INT} = sub { kill 'TERM', $pid; exit 143 };
my ($seen, $ended) = ('', 0);

# Reads what there is, or waits for it until `until`. False: nothing came.
sub hear {
	my ($until) = @_;
	my $bits = '';
	return 0 if $ended;
	vec($bits, fileno($out), 1) = 1;
	my $left = $until - time();
	return 0 if $left <= 0 || !select($bits, undef, undef, $left);
	my $n = sysread($out, my $bytes, 65536);
	if (!$n) {
		$ended = 1;
		return 0;
	}
	print $bytes;
	$seen .= $bytes;
	return 1;
}

sub give_up {
	print "\nFAIL console: $_[0]\n";
	kill 'TERM', $pid;
	waitpid($pid, 0);
	exit 1;
}

while (my $line = <$steps>) {
	chomp $line;
	my ($word, $rest) = split ' ', $line, 2;
	next if !defined $word || $word =~ /^#/;
	if ($word eq 'expect') {
		my ($seconds, $regex) = split ' ', $rest, 2;
		my $until = time() + $seconds;
		until ($seen =~ s/^.*?$regex//s) {
			hear($until) or give_up("no /$regex/ in $seconds s");
		}
	} elsif ($word eq 'send') {
		syswrite($in, "$rest\n");
	} elsif ($word eq 'kill') {
		kill 'KILL', $pid;
	} elsif ($word eq 'wait') {
		my $until = time() + $rest;
		1 while hear($until);
		give_up("it has not ended in $rest s") unless $ended;
	} else {
		die "$script: no step $word\n";
	}
}
close $in;
1 while hear(time() + 10);
waitpid($pid, 0);
exit($? & 127 ? 128 + ($? & 127) : $? >> 8);
