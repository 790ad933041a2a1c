# What a program does with Perl's Redis: the arguments are the ports of three nodes; the first goes away at `ready`.
use strict;
use warnings;
use Redis;
use Time::HiRes qw(sleep time);

$| = 1;
my @ports = @ARGV;
sub check { my ($is, $what) = @_; die "not so: $what\n" unless $is; }

my $store = Redis->new(server => "127.0.0.1:$ports[0]", name => 'perl');
check($store->ping, 'ping');
check($store->set(a => 1) eq 'OK' && $store->get('a') eq '1' && !defined $store->get('none'), 'set and get');
check($store->info->{role} eq 'master', 'info');

my ($answered, $wrong) = (0, 0);
for my $number (0 .. 499) {
    $store->set("perl:$number", $number, sub { $answered++ });
    $store->get("perl:$number", sub { my ($value) = @_; $wrong++ if $value ne $number });
}
$store->wait_all_responses;
check($answered == 500 && $wrong == 0, 'a pipeline');

my ($cursor, %seen) = (0);
do {
    ($cursor, my $keys) = $store->scan($cursor, 'MATCH', 'perl:*', 'COUNT', 50);
    $seen{$_}++ for @$keys;
} while ($cursor);
check(keys %seen == 500 && !grep({ $_ != 1 } values %seen), 'a scan');

$store->set('brief', 'v', 'PX', 80);
my $deadline = time + 5;
while (defined $store->get('brief')) {
    check(time < $deadline, 'it ends');
    sleep 0.01;
}
check($store->incrby('n', 7) == 7 && $store->del('n', 'none') == 1, 'numbers');
eval { $store->getset('a', 2) };
check($@ =~ /mode sloppy/, 'one step needs mode quorum');

print "ready\n";
check(<STDIN> eq "killed\n", 'it is told');
eval { $store->get('a') };
check($@, 'a node that is gone does not answer');
$store = Redis->new(server => "127.0.0.1:$ports[1]");
check($store->get('a') eq '1', 'another node has it');
check($store->set("after:$_" => $_) eq 'OK', 'a write') for 1 .. 50;
check($store->set(after => 'all') eq 'OK', 'the last write');
print "done\n";
