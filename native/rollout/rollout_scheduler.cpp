#include "rollout/rollout_scheduler.h"

#include <algorithm>

#include "core/error.h"

namespace foretoken {

namespace {

std::int64_t path_length(const TokenForest& forest, std::int32_t segment) {
  const Segment& s = forest.segments()[segment];
  return std::int64_t{s.start_position} + s.length;
}

}  // namespace

std::int64_t RolloutScheduler::sequence_pages(std::int64_t context, std::int64_t max_tokens, std::int64_t P) {
  // The last token is never fed back, so it needs no place.
  const std::int64_t end = context + max_tokens - 1;
  return (end + P - 1) / P - context / P;
}

std::int64_t RolloutScheduler::context_length(std::int32_t entry) const { return path_length(forest_, options_.from[entry]); }

std::int64_t RolloutScheduler::last_token(std::int32_t entry) const {
  const Segment& s = forest_.segments()[options_.from[entry]];
  return s.begin + s.length - 1;
}

std::int64_t RolloutScheduler::least_pages(const TokenForest& forest, const SampleOptions& options, std::int64_t P) {
  const ContextCache empty(forest, P);
  std::int64_t context = 0, sequence = 0;
  for (const std::int32_t segment : options.from) {
    context = std::max(context, empty.pages_needed(segment));
    sequence = std::max(sequence, sequence_pages(path_length(forest, segment), options.max_tokens, P));
  }
  return context + sequence;
}

std::int64_t RolloutScheduler::most_pages(const TokenForest& forest, const SampleOptions& options, std::int64_t P) {
  const ContextCache empty(forest, P);
  std::vector<bool> counted(forest.segments().size(), false);
  std::int64_t pages = 0;
  for (const std::int32_t segment : options.from) {
    for (std::int32_t up = segment; up >= 0 && !counted[up]; up = forest.segments()[up].parent) {
      counted[up] = true;
      pages += empty.pages_of(up);
    }
    pages += options.n * sequence_pages(path_length(forest, segment), options.max_tokens, P);
  }
  return pages;
}

RolloutScheduler::RolloutScheduler(const TokenForest& forest, const SampleOptions& options, std::int64_t prefill_tokens,
                                   std::int64_t max_sequences, std::int64_t pages, std::int64_t page_positions,
                                   KeptActivations* kept)
    : forest_(forest), options_(options), prefill_tokens_(prefill_tokens), max_sequences_(max_sequences),
      page_positions_(page_positions), pool_(pages), contexts_(forest, page_positions),
      unfinished_(options.from.size(), options.n), row_in_batch_(static_cast<std::size_t>(forest.size()), -1),
      kept_(kept), kept_tokens_(row_in_batch_.size(), PrefixTree::kAbsent) {
  result_.rollouts.resize(options.from.size() * static_cast<std::size_t>(options.n));
  for (std::size_t i = 0; i < result_.rollouts.size(); ++i)
    result_.rollouts[i].segment = options.from[i / static_cast<std::size_t>(options.n)];
  kept_last_.assign(result_.rollouts.size(), PrefixTree::kAbsent);
}

SampleResult RolloutScheduler::run(Backend& backend, CachedForward& forward, DecodeStep& step, const StopMatcher& stop,
                                   const Control& control) {
  sampled_.emplace(backend, std::max(max_sequences_, forward.chunk_rows()));
  first_rows_.reserve(backend, static_cast<std::size_t>(forward.chunk_rows()));
  const std::vector<std::int32_t>&banned = options_.banned, &stops = options_.stop.tokens;
  rules_ = {banned_.assign(backend, std::span<const std::int32_t>(banned)), static_cast<std::int64_t>(banned.size()),
            stops_.assign(backend, std::span<const std::int32_t>(stops)), static_cast<std::int64_t>(stops.size())};
  const std::int64_t total = static_cast<std::int64_t>(result_.rollouts.size()) * options_.max_tokens;
  while (next_entry_ < static_cast<std::int32_t>(options_.from.size()) || !waiting_.empty() || !active_.empty()) {
    control.check();
    if (admit_contexts()) prefill(backend, forward, stop, control);
    decode(backend, step, stop, control);
    control.report(decoded_, total);
  }
  if (ahead_.count() > 0) sampled_->fetch(ahead_.half, ahead_.count());  // of rollouts that had all ended
  result_.statistics.decode_tokens = decoded_;
  if (kept_) result_.statistics.kept_tokens = kept_->rows();
  return std::move(result_);
}

bool RolloutScheduler::admit_contexts() {
  const auto entries = static_cast<std::int32_t>(options_.from.size());
  // Contexts are taken in when places in the batch have come free, several at a time, so that prefills are not tiny.
  const auto occupied = static_cast<std::int64_t>(active_.size() + waiting_.size());
  if (next_entry_ >= entries || (occupied > 0 && occupied > max_sequences_ / 2)) return false;
  std::int64_t places = max_sequences_ - occupied;
  while (next_entry_ < entries && places > 0) {
    const std::int32_t segment = options_.from[next_entry_];
    const std::int64_t sequence = sequence_pages(context_length(next_entry_), options_.max_tokens, page_positions_);
    // The reserve is the largest rollout of any context that is here already or comes with this one.
    std::int64_t reserve = sequence;
    for (const Sequence& other : waiting_)
      reserve = std::max(reserve, sequence_pages(context_length(other.entry), options_.max_tokens, page_positions_));
    for (const std::int32_t other : admitted_)
      reserve = std::max(reserve, sequence_pages(context_length(other), options_.max_tokens, page_positions_));
    if (pool_.available() < contexts_.pages_needed(segment) + reserve) break;
    contexts_.acquire(segment, pool_, absent_);
    admitted_.push_back(next_entry_++);
    places -= options_.n;
  }
  return !admitted_.empty();
}

void RolloutScheduler::prefill(Backend& backend, CachedForward& forward, const StopMatcher& stop, const Control& control) {
  result_.statistics.waves += 1;
  // The rows of a context whose own segment is already present from another entry: its last token goes through again,
  // because logits are not kept. Its keys and values are written a second time with the same bits.
  std::vector<std::int32_t> entries;
  std::size_t next_absent = 0;
  std::int32_t offset = 0;
  std::vector<std::int32_t> last_row(forest_.segments().size(), -1);  // in the pass under way
  std::vector<std::int32_t> open = admitted_;
  std::vector<std::int64_t> touched;
  while (!open.empty()) {
    control.check();
    CachedBatch batch;
    touched.clear();
    while (next_absent < absent_.size() && batch.rows() < prefill_tokens_) {
      const std::int32_t segment = absent_[next_absent];
      const Segment& s = forest_.segments()[segment];
      const auto count = static_cast<std::int32_t>(std::min<std::int64_t>(s.length - offset, prefill_tokens_ - batch.rows()));
      for (std::int32_t i = offset; i < offset + count; ++i) touched.push_back(s.begin + i);
      contexts_.add_rows(segment, offset, count, batch, row_in_batch_);
      offset += count;
      if (offset == s.length) {
        last_row[segment] = static_cast<std::int32_t>(batch.rows()) - 1;
        ++next_absent;
        offset = 0;
      }
    }
    // Whatever context is complete now gets its first tokens drawn.
    entries.clear();
    std::vector<std::int32_t> later;
    const auto is_pending = [&](std::int32_t segment) {
      return std::find(absent_.begin() + static_cast<std::ptrdiff_t>(next_absent), absent_.end(), segment) != absent_.end();
    };
    for (const std::int32_t entry : open) {
      const std::int32_t segment = options_.from[entry];
      if (last_row[segment] < 0 && !is_pending(segment) && batch.rows() < prefill_tokens_) {
        const Segment& s = forest_.segments()[segment];
        touched.push_back(s.begin + s.length - 1);
        contexts_.add_rows(segment, s.length - 1, 1, batch, row_in_batch_);
        last_row[segment] = static_cast<std::int32_t>(batch.rows()) - 1;
      }
      if (last_row[segment] < 0) { later.push_back(entry); continue; }
      entries.push_back(entry);
      batch.head_rows.push_back(last_row[segment]);
    }
    forward.run(batch, kept_, control);
    if (kept_) keep_context(touched);
    result_.statistics.prefill_tokens += batch.rows();
    const auto rows = static_cast<std::int64_t>(entries.size());
    for (std::int64_t begin = 0; begin < rows; begin += forward.chunk_rows()) {
      const std::int64_t count = std::min(forward.chunk_rows(), rows - begin);
      const View logits = forward.logits(begin, count, kept_);
      for (std::int64_t i = 0; kept_ && i < count; ++i) kept_->add_logits(kept_tokens_[last_token(entries[begin + i])]);
      for (std::int32_t j = 0; j < options_.n; ++j) {
        std::vector<Sequence> fresh(static_cast<std::size_t>(count));
        Draw first;
        first.half = 1 - ahead_.half;
        for (std::int64_t i = 0; i < count; ++i) {
          fresh[i].entry = entries[begin + i];
          fresh[i].rollout = fresh[i].entry * options_.n + j;
          add_row(first, fresh[i].rollout, 0);
        }
        backend.sample(logits, first_rows_.assign(backend, std::span<const SampleRow>(first.rows)), rules_, sampled_->tokens(),
                       sampled_->logprobs());
        const SampledTokens::OnHost drawn = sampled_->fetch(first.half, count);
        for (std::int64_t i = 0; i < count; ++i)
          if (append(fresh[i], drawn.tokens[i], drawn.logprobs[i], stop)) waiting_.push_back(std::move(fresh[i]));
          else finish(fresh[i]);
      }
    }
    for (const std::int64_t token : touched) row_in_batch_[token] = -1;
    std::fill(last_row.begin(), last_row.end(), -1);
    open = std::move(later);
  }
  // Groups stay together: rollouts of one context read the same pages.
  std::stable_sort(waiting_.begin(), waiting_.end(), [](const Sequence& a, const Sequence& b) { return a.rollout < b.rollout; });
  absent_.clear();
  admitted_.clear();
}

void RolloutScheduler::admit_sequences(DecodeBatch& batch) {
  while (!waiting_.empty() && static_cast<std::int64_t>(active_.size()) < max_sequences_) {
    Sequence& sequence = waiting_.front();
    kept_last_[sequence.rollout] = kept_tokens_[last_token(sequence.entry)];
    const std::int64_t context = context_length(sequence.entry);
    const std::int64_t pages = sequence_pages(context, options_.max_tokens, page_positions_);
    if (pool_.available() < pages) return;
    const std::vector<std::int32_t>& parent = contexts_.table(options_.from[sequence.entry]);
    sequence.own_begin = context / page_positions_;
    sequence.table.assign(parent.begin(), parent.begin() + sequence.own_begin);
    for (std::int64_t i = 0; i < pages; ++i) sequence.table.push_back(pool_.take());
    if (context % page_positions_ != 0 && pages > 0) {
      batch.copy_from.push_back(parent[sequence.own_begin]);
      batch.copy_to.push_back(sequence.table[sequence.own_begin]);
    }
    active_.push_back(std::move(sequence));
    waiting_.pop_front();
  }
}

DecodeBatch RolloutScheduler::next_step(const Draw& ahead, Draw& drawing) {
  DecodeBatch batch;
  admit_sequences(batch);
  std::int64_t next_ahead = 0;  // rows of `ahead` are in the order of active_, but for rollouts that have ended
  for (const Sequence& sequence : active_) {
    const Rollout& rollout = result_.rollouts[sequence.rollout];
    std::int64_t unseen = next_ahead;
    while (unseen < ahead.count() && ahead.rollouts[unseen] != sequence.rollout) ++unseen;
    const bool is_ahead = unseen < ahead.count();
    if (is_ahead) next_ahead = unseen + 1;
    const auto tokens = static_cast<std::int64_t>(rollout.tokens.size()) + (is_ahead ? 1 : 0);
    if (tokens == options_.max_tokens) continue;  // its last token is being drawn
    const std::int64_t position = context_length(sequence.entry) + tokens - 1;
    batch.tokens.push_back(rollout.tokens.back());
    batch.token_from.push_back(is_ahead ? sampled_->offset(ahead.half) + static_cast<std::int32_t>(unseen) : -1);
    batch.positions.push_back(static_cast<std::int32_t>(position));
    batch.tables.emplace_back(sequence.table.data(), static_cast<std::size_t>(position / page_positions_ + 1));
    add_row(drawing, sequence.rollout, tokens);
  }
  batch.draws = drawing.rows;
  return batch;
}

void RolloutScheduler::decode(Backend& backend, DecodeStep& step, const StopMatcher& stop, const Control& control) {
  Draw drawing;
  drawing.half = 1 - ahead_.half;
  const DecodeBatch batch = next_step(ahead_, drawing);
  if (batch.rows() > 0) {
    step.run(batch, rules_, *sampled_, kept_, control);
    if (kept_) keep_step(batch, drawing);
    sampled_->start_download(drawing.half, drawing.count());
    result_.statistics.decode_steps += 1;
  }
  collect(ahead_, stop);
  ahead_ = std::move(drawing);
  if (!backend.asynchronous()) {
    collect(ahead_, stop);
    ahead_.clear();
  }
}

void RolloutScheduler::collect(const Draw& drawing, const StopMatcher& stop) {
  if (drawing.count() == 0) return;
  const SampledTokens::OnHost drawn = sampled_->fetch(drawing.half, drawing.count());
  std::vector<Sequence> still;
  still.reserve(active_.size());
  std::int64_t row = 0;
  for (Sequence& sequence : active_) {
    // Rows of rollouts that ended in the meantime are skipped; rollouts that joined since then have no row.
    std::int64_t own = row;
    while (own < drawing.count() && drawing.rollouts[own] != sequence.rollout) ++own;
    const bool has_row = own < drawing.count();
    if (has_row) row = own + 1;
    if (!has_row || append(sequence, drawn.tokens[own], drawn.logprobs[own], stop)) still.push_back(std::move(sequence));
    else finish(sequence);
  }
  active_ = std::move(still);
}

void RolloutScheduler::add_row(Draw& drawing, std::int32_t rollout, std::int64_t position) const {
  SampleRow row;
  row.seed = options_.seed;
  row.rollout = options_.rollout_ids.empty() ? static_cast<std::uint32_t>(rollout) : options_.rollout_ids[rollout];
  row.position = static_cast<std::uint32_t>(position);
  row.temperature = options_.temperature;
  row.top_k = options_.top_k;
  row.top_p = static_cast<float>(options_.top_p);
  row.min_p = static_cast<float>(options_.min_p);
  row.may_stop = position >= options_.min_tokens;
  row.offset = sampled_->offset(drawing.half);
  drawing.rollouts.push_back(rollout);
  drawing.rows.push_back(row);
}

bool RolloutScheduler::append(Sequence& sequence, std::int32_t token, float logprob, const StopMatcher& stop) {
  if (!(logprob <= 0))
    fail(ErrorCode::NonFinite, "rollout ", sequence.rollout, ": the log-prob of token ",
         result_.rollouts[sequence.rollout].tokens.size(), " is not a number: the weights have diverged or hold NaN");
  Rollout& rollout = result_.rollouts[sequence.rollout];
  rollout.tokens.push_back(token);
  rollout.logprobs.push_back(logprob);
  decoded_ += 1;
  if (const std::optional<StopReason> reason = stop.append(token, sequence.tail)) {
    rollout.stop = *reason;
    return false;
  }
  rollout.stop = StopReason::Length;
  return static_cast<std::int32_t>(rollout.tokens.size()) < options_.max_tokens;
}

void RolloutScheduler::finish(Sequence& sequence) {
  for (std::size_t block = static_cast<std::size_t>(sequence.own_begin); block < sequence.table.size(); ++block)
    pool_.give_back(sequence.table[block]);
  sequence.table.clear();
  if (--unfinished_[sequence.entry] == 0) contexts_.release(options_.from[sequence.entry], pool_);
}

void RolloutScheduler::keep_context(const std::vector<std::int64_t>& tokens) {
  for (const std::int64_t token : tokens) {
    const Segment& segment = forest_.segments()[forest_.segment_of(token)];
    std::int32_t parent = PrefixTree::kRoot;
    if (token > segment.begin) {
      parent = kept_tokens_[token - 1];
    } else if (segment.parent >= 0) {
      const Segment& above = forest_.segments()[segment.parent];
      parent = kept_tokens_[above.begin + above.length - 1];
    }
    // A context that comes again is still there when there is no room for it a second time.
    if (const std::int32_t row = kept_->add(parent, forest_.tokens()[token]); row >= 0) kept_tokens_[token] = row;
  }
}

void RolloutScheduler::keep_step(const DecodeBatch& batch, const Draw& drawing) {
  for (std::size_t row = 0; row < batch.tokens.size(); ++row) {
    std::int32_t& last = kept_last_[drawing.rollouts[row]];
    last = kept_->add(last, batch.tokens[row]);
    kept_->add_logits(last);
  }
}

}  // namespace foretoken
